"""Runs the examples and notebooks with tiny models and few rows."""

import importlib.util
import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import itrex_sweet
from itrex_sweet.demo.corpus import LABELS, make_corpus
from tests.acceleration.conftest import texts_of, write_plain
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer
from tests.tiny_models import tiny_model

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(autouse=True)
def in_a_folder_on_one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def review_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with the words of the generated reviews."""
    reviews = make_corpus(train=600, calibration=1500, test=200)
    words = sorted({word for split in reviews.values() for review in split for word in re.findall(r"\w+", review.text)})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    tokenizer = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "pretrained"
    model, tokenizer = tiny_model("bert", num_layers=4, num_labels=2), review_tokenizer()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    return write_plain(tmp_path_factory.mktemp("examples") / "deployed")


@pytest.fixture
def by_layers(monkeypatch):
    """Chooses exits and policies by layers: the time of a tiny model is mostly noise."""
    from itrex_sweet.acceleration import accelerating

    for name in ("calibrate", "prune_exits"):
        real = getattr(accelerating, name)
        monkeypatch.setattr(
            accelerating, name, lambda *arguments, real=real, **options: real(*arguments, **options, unit="layers")
        )


def example(name: str):
    """Imports an example from its file."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_notebook(name: str) -> dict:
    """Runs the code cells of a notebook in one namespace, and returns it."""
    names: dict = {"__name__": "__main__"}
    for cell in json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}.ipynb, {cell['id']}", "exec"), names)
    return names


def write_texts(path: Path, count: int, labels: bool) -> Path:
    rows = [
        {"text": text} | ({"label": LABELS[row % 2]} if labels else {}) for row, text in enumerate(texts_of(count, 7))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_fine_tune(pretrained, capsys, tmp_path):
    options = ["--model", str(pretrained), "--rows", "64", "--epochs", "1", "--output", "made"]
    example("fine_tune").main(options)
    printed = capsys.readouterr().out
    assert "exit 1: " in printed and "exit 4: " in printed
    assert itrex_sweet.open_artifact("made").exits == (1, 2, 3, 4)
    data = write_texts(tmp_path / "rows.jsonl", 40, labels=True)
    example("fine_tune").main([*options, "--data", str(data)])
    assert itrex_sweet.open_artifact("made").model_config().id2label == dict(enumerate(LABELS))


@pytest.mark.slow
def test_accelerate_deployed_model(deployed, by_layers, capsys, tmp_path):
    traffic = write_texts(tmp_path / "traffic.jsonl", 700, labels=False)
    options = ["--traffic", str(traffic), "--float32", "--learning-rate", "3e-3", "--max-agreement-drop", "0.1"]
    status = example("accelerate_deployed_model").main(["--model", str(deployed), *options, "--output", "fast"])
    assert status in (0, 3), "3: a tiny model gains no time"
    assert "same label as the original model" in capsys.readouterr().out


@pytest.mark.slow
def test_quantize_and_calibrate(pretrained, capsys):
    example("fine_tune").main(["--model", str(pretrained), "--rows", "64", "--epochs", "1", "--output", "float"])
    example("quantize_and_calibrate").main(["float", "--rows", "1500", "--recipe", "dynamic", "--output", "int8"])
    assert itrex_sweet.open_artifact("int8").precision == "int8"
    printed = capsys.readouterr().out
    assert "full depth: accuracy" in printed and "early exit: accuracy" in printed


def test_web_service():
    tiny_artifact(Path("model"), tokenizer=tiny_tokenizer())
    with example("web_service").make_server("model", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"

        def post(content: object) -> dict:
            request = urllib.request.Request(f"{address}/classify", json.dumps(content).encode())
            with urllib.request.urlopen(request, timeout=20) as response:
                return json.load(response)

        try:
            answers = post({"texts": ["a fine phone", ""], "max_exit": 2})["answers"]
            assert answers[0]["exit_layer"] in (1, 2) and "error" in answers[1]
            with urllib.request.urlopen(f"{address}/health", timeout=20) as response:
                assert json.load(response) == {"exits": [1, 2, 4]}
            for wrong in ({}, {"texts": ["a"], "threshold": 7}):
                with pytest.raises(urllib.error.HTTPError, match="400"):
                    post(wrong)
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_review_sentiment(pretrained, monkeypatch, capsys):
    monkeypatch.setenv("ITREX_SWEET_EXAMPLE_MODEL", str(pretrained))
    monkeypatch.setenv("ITREX_SWEET_EXAMPLE_ROWS", "1260")
    names = run_notebook("review_sentiment")
    assert {"plain", "ironic"} <= set(names["groups"])
    assert "early exit  accuracy" in capsys.readouterr().out


@pytest.mark.slow
def test_accelerate_your_classifier(deployed, by_layers, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("DATA", str(write_texts(tmp_path / "traffic.jsonl", 760, labels=False)))
    settings = {"DEPLOYED": str(deployed), "LEARNING_RATE": "3e-3", "DROP": "0.1", "FLOAT32": "1", "ROWS": "760"}
    for name, value in settings.items():
        monkeypatch.setenv(f"ITREX_SWEET_EXAMPLE_{name}", value)
    run_notebook("accelerate_your_classifier")
    assert "labels differ" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_is_valid(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers) and notebook["cells"][0]["cell_type"] == "markdown"
