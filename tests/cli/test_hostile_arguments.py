"""Tests of commands with invalid or unusual arguments: they exit with a status and a one-line error, not a traceback.

A table of things that may stand where a model, a data file, a folder to write to or a number is expected, tried with
every verb that takes one.
"""

import contextlib
import itertools
import json
import os
import shutil

import pytest

from itrex_sweet.cli import main
from itrex_sweet.quantization import quantizer
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_cascade, tiny_tokenizer
from tests.tiny_models import tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a folder of valid and invalid files: `good` is an artifact, `good.csv` has rows for it."""
    folder = tmp_path_factory.mktemp("hostile")
    tiny_artifact(folder / "good", tokenizer=tiny_tokenizer())
    tiny_artifact(folder / "without tokenizer")
    tiny_cascade(folder / "cascade", tokenizer=tiny_tokenizer())
    tiny_model("bert", num_layers=2).save_pretrained(folder / "plain")
    tiny_tokenizer().save_pretrained(folder / "plain")
    (folder / "empty folder").mkdir()
    (folder / "file").write_text("x")
    os.mkfifo(folder / "fifo")
    for name, file, contents in (
        ("config is a folder", "config.json", None),
        ("config is cut", "config.json", b'{"model_type": "be'),
        ("config is not UTF-8", "config.json", b"\xff\xfe\x00"),
        ("settings are a list", "sweet_config.json", b"[]"),
        ("settings are empty", "sweet_config.json", b""),
        ("weights are empty", "model.safetensors", b""),
        ("weights are text", "model.safetensors", b"x" * 200),
    ):
        shutil.copytree(folder / "good", folder / name)
        (folder / name / file).unlink()
        if contents is None:
            (folder / name / file).mkdir()
        else:
            (folder / name / file).write_bytes(contents)
    texts = [f"{a} {b} {c}" for a, b, c in itertools.product(WORDS[:10], WORDS[:5], WORDS[:3])]
    rows = [f"{text},{number % 3}" for number, text in enumerate(texts)]
    for name, lines in {
        "good.csv": ["text,label", *rows],
        "header alone.csv": ["text,label"],
        "one row.csv": ["text,label", rows[0]],
        "one label.csv": ["text,label", *[f"{text},1" for text in texts]],
        "label 77.csv": ["text,label", *[f"{text},77" for text in texts]],
        "other columns.csv": ["body,stars", *rows],
        "texts.txt": texts,
        "good.jsonl": [json.dumps({"text": text, "label": number % 3}) for number, text in enumerate(texts)],
    }.items():
        (folder / name).write_text("\n".join(lines))
    (folder / "empty.csv").touch()
    (folder / "bytes.csv").write_bytes(bytes(range(256)) * 8)
    (folder / "no gzip.csv.gz").write_bytes(b"\x1f\x8bno")
    return folder


@pytest.fixture
def attempt(place, run, monkeypatch, tmp_path):
    """Runs a command with one path substituted for `MODEL`, `DATA` or `OUT`; the other arguments are valid."""
    monkeypatch.setattr(quantizer, "observe", observe_with_hooks)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)  # no file may be written here
    data, layers = ("--data", "DATA"), ("--max-layers", 3.9, "--unit", "layers")
    lines = {
        "info": ("info", "MODEL"),
        "predict": ("predict", "MODEL", "DATA"),
        "evaluate": ("evaluate", "MODEL", *data, "--timed-rows", 0, "--output", "OUT"),
        "evaluate against": ("evaluate", place / "good", *data, "--timed-rows", 0, "--against", "MODEL"),
        "calibrate": ("calibrate", "MODEL", *data, *layers, "--output", "OUT"),
        "calibrate against": (
            "calibrate", place / "good", *data, "--max-accuracy-drop", 0.9, "--unit", "layers",
            "--output", "OUT", "--against", "MODEL",
        ),
        "quantize": ("quantize", "MODEL", "--calibration", "DATA", "--output", "OUT", "--recipe", "dynamic"),
        "bench": ("bench", "MODEL", *data, "--rows", 4, "--repeats", 1, "--engines", "torch"),
        "drift": ("drift", "MODEL", "DATA"),
        "export": ("export", "MODEL", "--output", "OUT", "--format", "torchscript"),
    }  # fmt: skip

    def attempt(verb, **given):
        things = {"MODEL": place / "good", "DATA": place / "good.csv", "OUT": tmp_path / "out", **given}
        finished = run(*(things.get(word, word) if isinstance(word, str) else word for word in lines[verb]))
        assert "Traceback" not in finished.err
        if finished.status:
            assert finished.status in (1, 2, 3), finished.err
            assert finished.err.strip() or finished.status == 3, "it says why"
        assert {path.name for path in tmp_path.iterdir()} <= {"out"}, "nothing beside the output"
        return finished

    return attempt


MODELS = [
    "absent", "file", "fifo", "empty folder", "plain", "config is a folder", "config is cut", "config is not UTF-8",
    "settings are a list", "settings are empty", "weights are empty", "weights are text",
]  # fmt: skip
TAKE_A_MODEL = ["info", "predict", "evaluate", "calibrate", "quantize", "bench", "drift", "export"]


@pytest.mark.parametrize("verb", TAKE_A_MODEL)
@pytest.mark.parametrize("model", MODELS)
def test_invalid_model(attempt, place, verb, model):
    finished = attempt(verb, MODEL=place / model)
    assert finished.status == 1 and not finished.out
    assert model in finished.err and finished.err.count("error: ") == 1


@pytest.mark.parametrize("verb", ["evaluate against", "calibrate against"])
@pytest.mark.parametrize("model", [model for model in MODELS if model not in ("plain", "fifo")])
def test_invalid_reference_model(attempt, place, verb, model):
    finished = attempt(verb, MODEL=place / model)
    assert finished.status == 1 and model in finished.err


@pytest.mark.parametrize("verb", TAKE_A_MODEL)
@pytest.mark.parametrize("model", ["cascade", "without tokenizer"])
def test_other_kinds_of_artifact(attempt, place, verb, model):
    finished = attempt(verb, MODEL=place / model)
    assert finished.status == 0 or model in finished.err


@pytest.mark.parametrize("verb", [*TAKE_A_MODEL, "calibrate against"])
@pytest.mark.parametrize("name", ["", "a\0b", "bad\udc80name", "x" * 5000, "x/" * 3000, "no such/name at all", "-"])
def test_invalid_file_names(attempt, verb, name):
    finished = attempt(verb, MODEL=name)
    assert finished.status == (2 if name == "" else 1) and not finished.out


@pytest.mark.parametrize("verb", ["predict", "evaluate", "calibrate", "quantize", "bench", "drift"])
@pytest.mark.parametrize(
    "data",
    [
        "absent.csv", "absent", "empty folder", "empty.csv", "header alone.csv", "one row.csv", "one label.csv",
        "label 77.csv", "other columns.csv", "bytes.csv", "no gzip.csv.gz", "good/config.json",
        "good/model.safetensors", "file", "/dev/null", "", "a\0b", "y" * 5000, "texts.txt", "good.jsonl",
    ],
)  # fmt: skip
def test_unusual_data_files(attempt, place, verb, data):
    finished = attempt(verb, DATA=place / data if data and "\0" not in data and len(data) < 999 else data)
    if data.startswith("absent") or data in ("empty folder", "bytes.csv"):
        assert finished.status == 1
    if data in ("", "a\0b"):
        assert finished.status == (1 if data else 2)


@pytest.mark.parametrize("verb", ["evaluate", "calibrate", "quantize", "export"])
@pytest.mark.parametrize(
    "output", ["file", "file/inside", "/proc/nothing/x", "/dev/full", "/dev/null", "fifo", "z" * 5000, "", "a\0b"]
)
def test_unwritable_outputs(attempt, place, verb, output):
    plain = output.startswith("/") or not output or "\0" in output or len(output) > 999
    finished = attempt(verb, OUT=output if plain else place / output)
    assert finished.status == (2 if output == "" else 1)
    assert (place / "file").read_text() == "x"


ODD = ["nan", "inf", "-inf", "-1", "0", "1e400", "abc", "1.5", "9" * 5000, "10" * 12, "٣", "0x10", "1_0", "None", " "]
NUMBERS = {
    "calibrate": [
        "--max-accuracy-drop", "--max-agreement-drop", "--max-metric-drop", "--confidence", "--max-latency-ms",
        "--max-layers", "--batch-size", "--max-length", "--seed",
    ],
    "evaluate": ["--limit", "--max-length", "--threshold", "--batch-size", "--repeats"],
    "quantize": ["--rows", "--max-length", "--seed", "--max-drop", "--max-moved", "--max-changed"],
    "bench": ["--rows", "--tokens", "--max-length", "--threads", "--batch-size"],
    "predict": ["--threshold", "--batch-size", "--quality", "--max-exit", "--deadline-ms", "--max-length"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "option"), [(verb, option) for verb, options in NUMBERS.items() for option in options]
)
def test_unusual_numbers(place, run, monkeypatch, tmp_path, verb, option):
    monkeypatch.setattr(quantizer, "observe", observe_with_hooks)
    monkeypatch.chdir(tmp_path)
    few = place / "one row.csv"  # so that accepted commands finish soon
    rest = {
        "calibrate": ["--data", few, "--unit", "layers"],
        "evaluate": ["--data", few, "--timed-rows", "0"],
        "quantize": ["--calibration", few, "--output", tmp_path / "out"],
        "bench": ["--data", few, "--repeats", "1", "--engines", "torch"],
        "predict": [place / "texts.txt"],
    }[verb]
    for number in ODD:
        finished = run(verb, place / "good", *rest, f"{option}={number}")
        assert finished.status in (0, 1, 2) and "Traceback" not in finished.err, (option, number, finished.err)
        if number in ("nan", "-inf", "-1", "abc", "None", " ", "0x10"):
            assert finished.status != 0, (option, number)
        assert len(finished.err) < 10_000


def test_damaged_predictions_name_their_line(run, place, tmp_path):
    calibrated = tmp_path / "calibrated"
    argv = ("calibrate", place / "good", "--data", place / "good.csv", "--max-layers", 3.9, "--unit", "layers")
    assert run(*argv, "--output", calibrated).status == 0
    answer = {"label": "LABEL_1", "score": 0.5, "exit_layer": 1}
    lines = [
        json.dumps({**answer, name: value})
        for name, values in {
            "label": [1, None, ["LABEL_1"], {}, "other"],
            "exit_layer": [3, None, [1], {}, "1", True, float("nan")],
            "score": [None, "0.5", [0.5], float("nan"), float("inf"), -1, 2, True],
        }.items()
        for value in values
    ]
    for line in [*lines, "[" * 100_000, "no json", "[]", "3", '{"label": ' + "1" * 5000 + "}", "\xff"]:
        path = tmp_path / "answers.jsonl"
        path.write_bytes((line + "\n").encode("latin-1") * 300)
        finished = run("drift", calibrated, path)
        assert finished.status == 1 and "error: " in finished.err, line[:80]
        against = run(*argv, "--max-agreement-drop", 0.5, "--output", tmp_path / "x", "--against", path)
        assert against.status == 1 and "error: " in against.err, line[:80]


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_closed_standard_streams_print_no_traceback(place, monkeypatch, closed):
    monkeypatch.setattr(f"sys.{closed}", None)
    assert main(["info", str(place / "good")]) == 0
    assert main(["info", str(place / "absent")]) == 1
    if closed == "stdin":
        assert main(["drift", str(place / "good")]) == 1


@pytest.mark.parametrize("command", ["info", "predict"])
def test_full_disk_on_stdout(place, monkeypatch, capsys, command):
    texts = [] if command == "info" else [str(place / "texts.txt")]
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        monkeypatch.setattr("itrex_sweet.cli._discard_stdout", lambda: None)  # which would replace the descriptor
        assert main([command, str(place / "good"), *texts]) == 1
        assert "cannot write to standard output ([Errno 28] No space left" in capsys.readouterr().err
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()


def test_labels_that_stdout_cannot_encode(place, monkeypatch, tmp_path):
    shutil.copytree(place / "without tokenizer", tmp_path / "naïve →")
    with open(tmp_path / "out.txt", "w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        assert main(["info", str(tmp_path / "naïve →")]) == 0
        assert out.errors == "strict", "as it was before"
    assert "na\\xefve \\u2192" in (tmp_path / "out.txt").read_text()
