"""Tests of folders that try to run code in many ways, with "y" on standard input: no code is run."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import ArtifactError
from itrex_sweet.tokenization.stored import load_tokenizer
from tests.mutation import edit_config, edit_json, recompute_hashes
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

EVIL = """
import os, pathlib
pathlib.Path(os.environ["CANARY"]).write_text(__name__)
from transformers import BertConfig, PreTrainedTokenizerFast, BertForSequenceClassification
class Evil(BertConfig): pass
class EvilModel(BertForSequenceClassification): pass
class EvilTokenizer(PreTrainedTokenizerFast): pass
"""


class Shell:
    def __reduce__(self):
        return os.system, ('echo pickle > "$CANARY"',)


def config(**fields):
    return lambda directory: edit_config(directory, lambda contents: contents.update(fields))


def tokenizer(**fields):
    def change(directory):
        edit_json(directory / "tokenizer_config.json", lambda contents: contents.update(fields))
        recompute_hashes(directory)

    return change


def pickles(directory):
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "tokenizer.pkl",
        "training_args.bin",
        "optimizer.pt",
        "rng_state.pth",
    ):
        (directory / name).write_bytes(pickle.dumps(Shell()))


def pickle_alone(directory):
    pickles(directory)
    (directory / "model.safetensors").unlink()
    (directory / "sweet_config.json").unlink()


def python_path(directory):
    for name in ("sitecustomize.py", "usercustomize.py", "conftest.py", "torch.py", "transformers.py", "numpy.py"):
        (directory / name).write_text(EVIL)


AUTO_MAP = {
    "AutoConfig": "evil.Evil",
    "AutoModel": "evil.EvilModel",
    "AutoModelForSequenceClassification": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
}
TRICKS = {
    "family": config(model_type="evil", auto_map=AUTO_MAP),
    "family of nothing": config(model_type=None, auto_map=AUTO_MAP),
    "known family": config(auto_map=AUTO_MAP),
    "other repository": config(model_type="evil", auto_map={"AutoConfig": "evil/repo--evil.Evil"}),
    "architectures": config(architectures=["EvilModel"], auto_map=AUTO_MAP),
    "pipelines": config(custom_pipelines={"text-classification": {"impl": "evil.Evil", "pt": ["EvilModel"]}}),
    "kernel": config(attn_implementation="evil/kernel", _attn_implementation="evil/kernel"),
    "tokenizer map": tokenizer(auto_map=AUTO_MAP),
    "tokenizer list": tokenizer(auto_map=["evil.EvilTokenizer", None]),
    "tokenizer class": tokenizer(tokenizer_class="EvilTokenizer"),
    "tokenizer class and map": tokenizer(tokenizer_class="EvilTokenizer", auto_map=AUTO_MAP),
    "tokenizer class of the config": config(tokenizer_class="EvilTokenizer"),
    "dotted tokenizer class": tokenizer(tokenizer_class="evil.EvilTokenizer"),
    "processor": tokenizer(processor_class="EvilProcessor"),
    "template": tokenizer(chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "paths": tokenizer(vocab_file="/etc/passwd", tokenizer_file="/etc/passwd", added_tokens_file="/etc/passwd"),
    "other tokenizer files": tokenizer(fast_tokenizer_files=["../../etc/tokenizer.4.0.0.json"]),
    "pickles": pickles,
    "pickle alone": pickle_alone,
    "python path": python_path,
}
SCRIPT = """
import sys
from itrex_sweet.errors import SweetError
from itrex_sweet import SweetModelForSequenceClassification
try:
    model = SweetModelForSequenceClassification.from_pretrained(sys.argv[1])
    print(model.predict([line.strip() for line in sys.stdin]))
except SweetError as error:
    print("refused:", type(error).__name__, error)
assert "evil" not in sys.modules
"""


RUNNER = f"""
import os, sys
from itrex_sweet import SweetModelForSequenceClassification  # once for all folders
for name in os.listdir(sys.argv[1]):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        folder = os.path.join(sys.argv[1], name)
        os.environ["CANARY"] = folder + ".canary"
        os.write(write, b"y\\ny\\n")
        os.close(write)
        os.dup2(read, 0)
        sys.stdin = open(0)
        said = open(folder + ".said", "w")
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        sys.argv = ["script", folder]
        exec({SCRIPT!r})
        sys.stdout.flush()
        os._exit(0)
    os.close(read)
    os.close(write)
    os.waitpid(child, 0)
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """Loads each folder in a separate process; returns name → output, and whether its code was run."""
    root = tmp_path_factory.mktemp("tricks")
    folders = {name: root / name.replace(" ", "-") for name in TRICKS}
    for name, trick in TRICKS.items():
        tiny_artifact(folders[name], exits=(1, 2), tokenizer=tiny_tokenizer())
        for file in ("evil.py", "__init__.py"):
            (folders[name] / file).write_text(EVIL)
        trick(folders[name])
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", RUNNER, str(root)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert finished.returncode == 0, finished.stderr
    return {
        name: (Path(f"{folder}.said").read_text(), Path(f"{folder}.canary").exists())
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("trick", TRICKS)
def test_no_code_is_run_and_no_question_asked(tried, trick):
    said, ran = tried[trick]
    assert not ran, said
    assert "[y/N]" not in said and "custom code" not in said.replace("no custom code", "")
    assert "refused: " in said or "'label': 'LABEL_" in said, said
    if "refused" not in said:
        assert said.count("'label'") == 2, "a text was read as an answer"


@pytest.mark.parametrize(
    ("trick", "words"),
    [
        ("family", "model_type='evil'"),
        ("tokenizer map", "tokenizer_config.json.*auto_map"),
        ("tokenizer class", "tokenizer_class='EvilTokenizer'"),
        ("pickle alone", "only safetensors"),
    ],
)
def test_folders_that_require_code_are_rejected(tmp_path, trick, words):
    tiny_artifact(tmp_path / "a", exits=(1, 2), tokenizer=tiny_tokenizer())
    TRICKS[trick](tmp_path / "a")
    with pytest.raises(ArtifactError, match=words):
        SweetModelForSequenceClassification.from_pretrained(tmp_path / "a")


# ---------------------------------------------------------------------------------------------------- tokenizers


def damaged(change):
    def damage(directory):
        edit_json(directory / "tokenizer.json", change)
        recompute_hashes(directory)

    return damage


DAMAGES = {
    "empty": lambda directory: (directory / "tokenizer.json").write_bytes(b""),
    "text": lambda directory: (directory / "tokenizer.json").write_bytes(b"hello"),
    "not UTF-8": lambda directory: (directory / "tokenizer.json").write_bytes(b"\xff\xfe"),
    "list": lambda directory: (directory / "tokenizer.json").write_bytes(b"[]"),
    "nested": lambda directory: (directory / "tokenizer.json").write_bytes(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "no model": damaged(lambda contents: contents.pop("model")),
    "no added tokens": damaged(lambda contents: contents.pop("added_tokens")),
    "no version": damaged(lambda contents: contents.update(version=None)),
    "model of another type": damaged(lambda contents: contents["model"].update(type="Evil")),
    "no vocabulary": damaged(lambda contents: contents["model"].pop("vocab")),
    "vocabulary of strings": damaged(lambda contents: contents["model"].update(vocab={"a": "b"})),
    "id that is negative": damaged(lambda contents: contents["model"]["vocab"].update(the=-1)),
    "id that is large": damaged(lambda contents: contents["model"]["vocab"].update(the=2**31)),
    "id behind the table": damaged(lambda contents: contents["model"]["vocab"].update(the=96)),
    "no unknown token": damaged(lambda contents: contents["model"].update(unk_token="missing")),
    "post-processor of nothing": damaged(lambda contents: contents["post_processor"].update(special_tokens={})),
    "post-processor behind the table": damaged(
        lambda contents: contents["post_processor"]["special_tokens"]["[CLS]"].update(ids=[10**6])
    ),
    "pre-tokenizer that is none": damaged(lambda contents: contents.update(pre_tokenizer={"type": "Evil"})),
    "length of words": tokenizer(model_max_length="x"),
    "length of nothing": tokenizer(model_max_length=0),
    "length below nothing": tokenizer(model_max_length=-5),
    "no length": tokenizer(model_max_length=None),
    "special token that is a number": tokenizer(cls_token=3),
    "special token that is a list": tokenizer(pad_token=[]),
    "unknown token that is empty": tokenizer(unk_token=""),
    "special tokens that are empty": tokenizer(cls_token="", sep_token="", pad_token="", mask_token=""),
    "token of the settings behind the table": tokenizer(
        mask_token="[NEW]", extra_special_tokens=[f"x{number}" for number in range(80)]
    ),
    "class that is a number": tokenizer(tokenizer_class=3),
    "class that is a list": tokenizer(tokenizer_class=["a"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tokenizers_load_or_raise_artifact_error(tmp_path, damage):
    tiny_artifact(tmp_path / "a", exits=(1, 2), tokenizer=tiny_tokenizer())
    DAMAGES[damage](tmp_path / "a")
    recompute_hashes(tmp_path / "a")
    may_load = ("no version", "no added tokens", "no length")
    may_load += ("special token that is a number", "special token that is a list")
    may_load += ("unknown token that is empty", "special tokens that are empty")  # depends on transformers' release
    try:
        model = SweetModelForSequenceClassification.from_pretrained(tmp_path / "a")
    except ArtifactError as error:
        assert "tokenizer" in str(error) and str(tmp_path / "a") in str(error)
    else:
        assert damage in may_load
        assert len(model.predict(["the soup", ("good", "awful")])) == 2


def test_tokenizer_larger_than_the_embedding_table(tmp_path):
    large = tiny_tokenizer()
    large.add_tokens([f"word{number}" for number in range(100)])
    tiny_artifact(tmp_path / "a", exits=(1, 2), tokenizer=large)
    with pytest.raises(ArtifactError, match=r"'word\d+' the id \d+.*ids 0 to 95"):
        SweetModelForSequenceClassification.from_pretrained(tmp_path / "a")


def test_tokenizer_reads_the_verified_files_only(tmp_path):
    """Other files in the folder are not used, and no path leads into the deleted temporary folder."""
    tiny_tokenizer().save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "added_tokens.json").write_text(json.dumps({"evil": 50}))
    (tmp_path / "tokenizer.json").write_text("damaged since")
    made = load_tokenizer(files, {"model_type": "bert"}, tmp_path)
    assert made("the soup")["input_ids"] == tiny_tokenizer()("the soup")["input_ids"]
    assert "evil" not in made.get_vocab()
    mentioned = [value for value in (*vars(made).values(), *made.init_kwargs.values()) if isinstance(value, str)]
    assert not [value for value in mentioned if "itrex-sweet-tokenizer-" in value]
    assert load_tokenizer({}, {"model_type": "bert"}, tmp_path) is None
