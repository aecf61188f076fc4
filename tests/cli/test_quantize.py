"""Tests of `itrex-sweet quantize`: arguments and output."""

import json
import re

import pytest

from itrex_sweet import open_artifact
from itrex_sweet.cli import main
from itrex_sweet.quantization import quantizer
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(quantizer, "observe", observe_with_hooks)
    tiny_artifact(tmp_path / "float", tokenizer=tiny_tokenizer())
    lines = [f"{WORDS[row % 21]} {WORDS[row * 5 % 21]} {WORDS[row // 21]},{row % 3}" for row in range(150)]
    (tmp_path / "rows.csv").write_text("\n".join(["body,stars", *lines]))
    return tmp_path


def quantize(source, *more: str) -> int:
    arguments = ["quantize", str(source / "float"), "--calibration", str(source / "rows.csv"), "--output"]
    return main([*arguments, str(source / "int8"), "--text-column", "body", "--label-column", "stars", *more])


def test_comparison_table(source, capsys):
    assert quantize(source, "--recipe", "static", "--rows", "40") == 0
    shown = capsys.readouterr().out
    layers = "24 linear layers in INT8; in float: none; word embeddings in int8"
    for part in (f"recipe static, {layers}", "float32", "temperature", " MB → "):
        assert part in shown
    card = (source / "int8" / "README.md").read_text()
    assert "## Quantization" in card
    assert "AutoModelForSequenceClassification" not in card
    assert main(["info", str(source / "int8")]) == 0
    assert re.search("word embeddings +int8", capsys.readouterr().out)
    assert quantize(source, "--recipe", "static", "--rows", "40", "--embeddings", "float32") == 0
    assert "word embeddings in float32" in capsys.readouterr().out


def test_json_output_equals_the_record(source, capsys):
    assert quantize(source, "--recipe", "dynamic", "--rows", "40", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == open_artifact(source / "int8").quantization
    assert printed["activations"] == "per row"
    assert printed["calibration"]["rows_observed"] == 40


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--recipe", "int4"], 2, "invalid choice"),
        (["--max-drop", "2"], 2, "2.0: it is a number in [0, 1]"),
        (["--label-column", "points"], 1, "points"),
        (["--rows", "0"], 2, "at least 1"),
    ],
)
def test_invalid_arguments(source, capsys, more, status, message):
    assert quantize(source, *more) == status
    assert message in capsys.readouterr().err
    assert not (source / "int8").exists()


def test_warning_about_evaluation_on_calibration_rows(source, capsys):
    assert quantize(source, "--recipe", "static") == 0
    columns = ["--text-column", "body", "--label-column", "stars", "--timed-rows", "0"]
    assert main(["evaluate", str(source / "int8"), "--data", str(source / "rows.csv"), *columns]) == 0
    assert "% of the rows in" in (warned := capsys.readouterr().err)
    assert "are quantization rows of int8" in warned
