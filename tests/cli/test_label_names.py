"""Tests of label names on the command line: labels are matched by name, and ambiguous ones are rejected."""

import dataclasses
import json

import pytest

from tests.cli.conftest import sentences

TEXTS = [row["text"] for row in sentences(40, 2)]


def written(path, labels):
    path.write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(TEXTS, labels, strict=False))
    )
    return path


@pytest.mark.parametrize("spelling", ["{}", "LABEL_{}", "{}.0"])
def test_evaluate_accepts_every_spelling_of_a_label(run, artifact, corpus, tmp_path, spelling):
    expected = run("evaluate", artifact, "--data", corpus / "numbers.jsonl", "--timed-rows", 0, "--json").json()
    spelled = written(tmp_path / "d.jsonl", [spelling.format(place % 3) for place in range(40)])
    found = run("evaluate", artifact, "--data", spelled, "--timed-rows", 0, "--json").json()
    assert found[0]["report"] == expected[0]["report"]


def test_evaluate_uses_the_order_of_label_names(run, artifact, corpus, tmp_path):
    expected = run("evaluate", artifact, "--data", corpus / "numbers.jsonl", "--timed-rows", 0, "--json").json()
    named = written(tmp_path / "d.jsonl", [("one", "two", "Three")[place % 3] for place in range(40)])
    options = ("--timed-rows", 0, "--json", "--label-names", "one,two,Three")
    assert run("evaluate", artifact, "--data", named, *options).json()[0]["report"] == expected[0]["report"]
    from_one = written(tmp_path / "e.jsonl", [place % 3 + 1 for place in range(40)])
    options = ("--timed-rows", 0, "--json", "--label-names", "1=one,2=two,3=three")
    assert run("evaluate", artifact, "--data", from_one, *options).json()[0]["report"] == expected[0]["report"]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["neg", "pos"] * 20, "label 'neg' is not one of LABEL_0, LABEL_1, LABEL_2; the labels here are neg, pos"),
        ([1, 2, 3] * 13, "labels range from 0 to 2"),
        (["LABEL_1", "LABEL_3"] * 20, "labels range from 0 to 2"),
        ([0, 1, None] * 13, "no label. 13 of 39 rows have no label"),
        ([0.5, 1.5] * 20, "label '0.5' is not one of"),
    ],
)
@pytest.mark.parametrize(
    "verb",
    [
        ("evaluate", "--timed-rows", "0", "--data"),
        ("calibrate", "--unit", "layers", "--max-accuracy-drop", "0.1", "--data"),
        ("quantize", "--output", "out", "--calibration"),
    ],
)
def test_unknown_labels(run, artifact, tmp_path, monkeypatch, verb, labels, problem):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "d.jsonl", labels)
    finished = run(verb[0], artifact, *verb[1:], path)
    assert finished.status == 1 and problem in finished.err and "d.jsonl, line " in finished.err
    assert not finished.out


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["pos", "neg", "NaN"] * 13, "no label (NaN)"),
        (["positive"] * 20 + ["negative"] * 19 + ["postive"], "line 40: label 'postive'"),
        ([0, 1, 20231105] * 13, "label 20231105, but no row has 2 to 20231104"),
        ([1, 2] * 20, "labels range from 1 to 2"),
        ([0.1 * place for place in range(40)], "regression"),
        (["LABEL_0", "LABEL_2"] * 20, "label 2, but no row has 1"),
        (["one"] * 40, "all rows have the same label"),
    ],
)
def test_train_rejects_invalid_labels_before_training(run, pretrained, tmp_path, labels, problem):
    path = written(tmp_path / "d.jsonl", labels)
    finished = run("train", "--model", pretrained, "--train-file", path, "--output", tmp_path / "out")
    assert finished.status == 1 and problem in finished.err
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize("names", ["a", "a,", "a,a", "1=a,b", "1=a,1=b", "=a,2=b", ""])
def test_invalid_label_names(run, artifact, corpus, names):
    finished = run("evaluate", artifact, "--data", corpus / "numbers.jsonl", "--label-names", names)
    assert finished.status == 2 and "--label-names" in finished.err


@pytest.fixture()
def calibrated(artifact, monkeypatch):
    """Returns the artifact with the traffic summary of a calibration."""
    import itrex_sweet.artifact

    traffic = {"exits": [1, 2, 4], "score_edges": [0.5], "rows": [[[9, 9]] * 3] * 3}
    opened = dataclasses.replace(itrex_sweet.artifact.open_artifact(artifact), calibration={"traffic": traffic})
    monkeypatch.setattr(itrex_sweet.artifact, "open_artifact", lambda *_, **__: opened)
    return artifact


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"label": "LABEL_0", "score": 0.5, "exit_layer": 1}\n["x"]\n', "line 2: a JSON list"),
        ('{"label": ["LABEL_0"], "score": 0.5, "exit_layer": 1}\n' * 300, "is not a prediction of this model"),
        ("\ufeff[[[[", "not JSON"),
        ("a\0b\n", "line 1: not a JSON object"),
        ("", "0 answers"),
    ],
)
def test_drift_rejects_invalid_predictions(run, calibrated, tmp_path, content, problem):
    (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
    finished = run("drift", calibrated, tmp_path / "a.jsonl")
    assert finished.status == 1 and problem in finished.err and not finished.out


@pytest.mark.parametrize(
    "changed",
    [
        *({"score": value} for value in ("0.5", float("nan"), float("inf"), -0.1, 2, None, [0.5])),
        *({"exit_layer": value} for value in (True, 3, "1", [1], None, 10**400)),
        *({"label": value} for value in (None, {}, [], 0, "odd", "x" * 10_000)),
    ],
)
def test_drift_names_the_line_of_an_invalid_prediction(run, calibrated, tmp_path, changed):
    answer = {"label": "LABEL_0", "score": 0.5, "exit_layer": 1}
    lines = ['{"error": "empty"}', "", *[json.dumps(answer)] * 250, json.dumps(answer | changed), json.dumps(answer)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    finished = run("drift", calibrated, tmp_path / "a.jsonl")
    assert finished.status == 1 and "a.jsonl, line 253: " in finished.err
    assert "is not a prediction of this model" in finished.err and len(finished.err) < 1000
