"""Tests that an environment without torch and transformers gives bit-identical answers."""

import json
import subprocess
import sys

import pytest

import itrex_sweet
from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from tests.artifact_kinds import EXITS, KINDS, WITHOUT_NATIVE
from tests.light_environment import make_environment, run_in
from tests.test_file_tokenizer import CLASSES, written
from tests.tiny_artifacts import sign, tiny_artifact

pytestmark = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")

TEXTS = [
    *("the soup was good", "never again, it was awful and the phone was slow", ["a fine room", "not so warm"]),
    *("\u00e9t\u00e9 good", "quick " * 50, "", "b\u00e4d"),
]
NATIVE = [kind for kind in KINDS if kind not in WITHOUT_NATIVE]
BYTE_LEVEL = "roberta", "deberta"  # more ids than the tiny models have
TOKENIZERS = [name for name, (_, family) in CLASSES.items() if family not in BYTE_LEVEL]
CRITERIA = ("max_probability", "entropy", "margin", "patience", "patience_and_confidence")
CALLS: list[dict] = [
    {},
    {"threshold": 0.4},
    {"threshold": [0.36]},
    {"threshold": 1.0, "top_k": "all"},
    {"max_exit": EXITS[0]},
    {"deadline_ms": 60_000.0, "threshold": 0.4},
    {"batch_size": 2, "threshold": 0.38},
    {"max_length": 5, "top_k": 2},
    {"overlong": "refuse"},
    *({"policy": {"criterion": name, "thresholds": [0.35], "temperatures": [1.5, 0.7]}} for name in CRITERIA),
]
QUALITIES = [{"quality": 0.0}, {"quality": 0.5}, {"quality": 1.0}]
CANDIDATES = [
    {"thresholds": [threshold], "mean_layers": layers, "milliseconds": None}
    for threshold, layers in ((1.0, 2.0), (0.45, 1.6), (0.3, 1.0))
]

SCRIPT = """
import json, sys, logging
logging.disable(logging.WARNING)
import itrex_sweet
from itrex_sweet import Policy
for job in json.load(sys.stdin):
    classifier = itrex_sweet.load(job["directory"], backend=job["backend"], **job["options"])
    for call in job["calls"]:
        call = dict(call)
        if "policy" in call:
            call["policy"] = Policy.from_dict(call["policy"])
        answered = classifier.predict(job["texts"], errors="mark", **call)
        call.pop("deadline_ms", None)
        streamed = dict(classifier.answers(iter(job["texts"]), **call))
        assert [streamed[place] for place in range(len(job["texts"]))] == answered
        print(json.dumps(answered))
forbidden = {"torch", "transformers", "datasets", "optimum", "huggingface_hub", "safetensors.torch"}
assert not forbidden & set(sys.modules), forbidden & set(sys.modules)
"""


def jobs_of(root):
    """Returns the jobs: artifacts of every kind and of every class of tokenizer, with the calls for each."""
    for kind in NATIVE:
        KINDS[kind](root / kind)
        calls = [*CALLS]
        if kind == "learned":
            calls.append({"policy": {"criterion": "learned", "thresholds": [0.5], "temperatures": [1.0, 1.0]}})
        if kind in ("bert", "static"):
            sign(root / kind, calibration={"candidates": CANDIDATES})
            calls += QUALITIES
        yield kind, {"directory": str(root / kind), "options": {}, "calls": calls}
    yield "bfloat16", {"directory": str(root / "bert"), "options": {"dtype": "bfloat16"}, "calls": CALLS[:3]}
    for name in TOKENIZERS:
        files = written(_made(root / f"{name}-files"), name)
        tiny_artifact(root / name, CLASSES[name][1].replace("deberta-v2", "deberta-v3"), EXITS)
        for file, contents in files.items():
            (root / name / file).write_bytes(contents)
        sign(root / name)
        yield name, {"directory": str(root / name), "options": {}, "calls": CALLS[:2]}


def _made(folder):
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return make_environment(tmp_path_factory.mktemp("light") / "site-packages")


@pytest.fixture(scope="module")
def answered(environment, tmp_path_factory):
    """Returns the answers in an environment without torch, by the name of the job, and the jobs."""
    jobs = {
        name: {**job, "backend": "native", "texts": TEXTS}
        for name, job in jobs_of(tmp_path_factory.mktemp("artifacts"))
    }
    finished = run_in(environment, "-c", SCRIPT, stdin=json.dumps(list(jobs.values())))
    assert finished.returncode == 0, finished.stderr
    lines = iter(map(json.loads, finished.stdout.splitlines()))
    return jobs, {name: [next(lines) for _ in job["calls"]] for name, job in jobs.items()}


@pytest.mark.parametrize("name", [*NATIVE, "bfloat16", *TOKENIZERS])
def test_answers_equal_those_of_a_full_installation(answered, name):
    jobs, answers = answered
    model = SweetModelForSequenceClassification.from_pretrained(
        jobs[name]["directory"], backend="native", **jobs[name]["options"]
    )
    for call, theirs in zip(jobs[name]["calls"], answers[name], strict=True):
        call = {**call, "policy": Policy.from_dict(call["policy"])} if "policy" in call else call
        assert model.predict(TEXTS, errors="mark", **call) == theirs, call
    exits = {row["exit_layer"] for rows in answers[name] for row in rows}
    assert exits >= set(EXITS) or name == "bfloat16" or name in TOKENIZERS  # the calls tell the exits apart


def test_auto_selects_the_native_engine(answered, environment):
    script = "import sys, itrex_sweet; print(itrex_sweet.load(sys.argv[1]))"
    finished = run_in(environment, "-c", script, answered[0]["static"]["directory"])
    assert "Classifier(" in finished.stdout and "backend=native" in finished.stdout, finished.stderr


def test_command_line(answered, environment):
    directory = answered[0]["bert"]["directory"]
    finished = run_in(environment, "-m", "itrex_sweet.cli", "predict", directory, stdin="the soup was good\n")
    expected = SweetModelForSequenceClassification.from_pretrained(directory).predict(["the soup was good"])
    assert [json.loads(line) for line in finished.stdout.splitlines()] == expected, finished.stderr
    for arguments in (["info", directory], ["info", "--json"]):
        finished = run_in(environment, "-m", "itrex_sweet.cli", *arguments)
        assert finished.returncode == 0, finished.stderr
    backends = json.loads(finished.stdout)["backends"]
    assert backends["native"] == "usable" and "itrex-sweet[train]" in backends["torch"]


PICKLES = """
import copy, os, pickle, sys, threading
import itrex_sweet
classifier = itrex_sweet.load(sys.argv[1], threads=2)
texts = ["the soup was good", "never again"] * 9
expected = classifier.predict(texts)
assert pickle.loads(pickle.dumps(classifier)).predict(texts) == expected
assert copy.deepcopy(classifier).predict(texts) == expected
found = []
threads = [threading.Thread(target=lambda: found.append(classifier.predict(texts))) for _ in range(4)]
[thread.start() for thread in threads]
child = os.fork()
if child == 0:
    os._exit(0 if classifier.predict(texts) == expected else 7)
[thread.join() for thread in threads]
assert found == [expected] * 4 and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
threading.Thread(target=lambda: [classifier.predict(texts) for _ in range(10**6)], daemon=True).start()
"""


def test_pickles_threads_and_forks(answered, environment):
    finished = run_in(environment, "-c", PICKLES, answered[0]["bert"]["directory"])
    assert finished.returncode == 0, finished.stderr


REFUSALS = {
    "itrex_sweet.load(DIR, backend='torch')": "backend='torch' needs torch, which is not installed: pip install "
    "'itrex-sweet[train]'",
    "itrex_sweet.load(DIR, backend='ipex')": "itrex-sweet[ipex]",
    "itrex_sweet.load(SLOW)": "there is no tokenizer.json) needs transformers, which is not installed: pip install "
    "'itrex-sweet[train]'",
    "itrex_sweet.SweetCallback": "needs torch, which is not installed: pip install 'itrex-sweet[train]'",
    "itrex_sweet.SweetModelForSequenceClassification": "pip install 'itrex-sweet[train]'",
    "itrex_sweet.SweetQuantizer": "is not installed: pip install",
    "itrex_sweet.calibrate": "is not installed: pip install",
}


def test_missing_packages_name_the_extra(answered, environment, tmp_path):
    tiny_artifact(tmp_path / "slow", "bert", EXITS)
    (tmp_path / "slow" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "slow" / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good"]))
    sign(tmp_path / "slow")
    names = {"DIR": answered[0]["bert"]["directory"], "SLOW": tmp_path / "slow"}
    script = (
        "import itrex_sweet\nfrom itrex_sweet.errors import SweetError\n"
        + "\n".join(f"{name} = {str(path)!r}" for name, path in names.items())
        + "\nfor code in "
        + repr(list(REFUSALS))
        + ":\n    try:\n        eval(code)\n        print('nothing raised')\n"
        "    except SweetError as error:\n        print(' '.join(str(error).split()))"
    )
    finished = run_in(environment, "-c", script)
    assert finished.returncode == 0, finished.stderr
    for (code, words), said in zip(REFUSALS.items(), finished.stdout.splitlines(), strict=True):
        assert words in said, (code, said)


def test_full_installation_does_not_import_torch(answered):
    script = (
        "import sys, itrex_sweet; itrex_sweet.load(sys.argv[1]).predict(['good'])\n"
        "assert not {'torch', 'transformers', 'datasets', 'optimum', 'huggingface_hub'} & set(sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, answered[0]["static"]["directory"]], capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def test_public_names():
    assert itrex_sweet.load == itrex_sweet.Classifier.load
    assert issubclass(SweetModelForSequenceClassification, itrex_sweet.Classifier)
