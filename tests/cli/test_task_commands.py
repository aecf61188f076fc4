"""Tests of training, evaluating and calibrating multi-label and regression models on the command line."""

import itertools
import json

import pytest

from itrex_sweet import open_artifact
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION
from tests.cli.conftest import BAD, GOOD, THINGS

QUICK = ("--num-train-epochs", 1, "--learning-rate", "2e-3", "--use-cpu", "True", "--exits", "1,2,4")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns files of the two tasks: a text names two things, each with a judgement."""
    folder = tmp_path_factory.mktemp("tasks")
    pairs = list(itertools.product(GOOD + BAD, repeat=2))
    texts = [f"the {a} {THINGS[0]} and the {b} {THINGS[1]} was" for a, b in pairs] * 3
    sets = [[name for name, word in zip(("a", "b"), pair, strict=True) if word in GOOD] for pair in pairs] * 3
    for name, labels in (("multi", sets), ("value", [1.5 * len(each) for each in sets])):
        rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
        for part, chosen in (("train", rows[:64]), ("held", rows[64:])):
            path = folder / f"{name}-{part}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return folder


@pytest.mark.parametrize(
    "name, option, task, metric, tolerance",
    [
        ("multi", "multi-label", MULTI_LABEL, "exact_match", ()),
        ("value", "regression", REGRESSION, "pearson", ("--tolerance", 9)),
    ],
)
def test_train_evaluate_and_calibrate(run, pretrained, files, tmp_path, name, option, task, metric, tolerance):
    output, held_out = tmp_path / "out", files / f"{name}-held.jsonl"
    data = ["--train-file", files / f"{name}-train.jsonl", "--validation-file", files / f"{name}-train.jsonl"]
    finished = run("train", "--model", pretrained, *data, "--output", output, "--task", option, *QUICK)
    assert finished.status == 0, finished.err
    assert metric in finished.out
    artifact = open_artifact(output)
    assert artifact.task.name == task and artifact.provenance["task"] == option
    assert metric in (output / "README.md").read_text()
    evaluated = run("evaluate", output, "--data", held_out, "--json", "--timed-rows", 0)
    assert evaluated.json()[0]["report"]["metric_name"] == metric, evaluated.err
    budget = ["--max-layers", 3.5, *tolerance]
    calibrated = run("calibrate", output, "--data", held_out, "--unit", "layers", "--force", "--json", *budget)
    assert calibrated.status == 0, calibrated.err
    assert metric in calibrated.json()["metrics"] and open_artifact(output).policy.task == task


def test_options_that_do_not_fit(run, pretrained, files, tmp_path):
    def refused(name, *more):
        data = ["--train-file", files / f"{name}-train.jsonl"]
        finished = run("train", "--model", pretrained, *data, "--output", tmp_path / "out", *QUICK, *more)
        assert finished.status != 0
        return finished.err

    assert "--task multi-label" in refused("multi")
    assert "--task regression" in refused("value")
    assert "not a finite number" in refused("multi", "--task", "regression")
    assert "has no classes" in refused("value", "--task", "regression", "--class-weights", "balanced")
    assert "multi-model" in refused("value", "--task", "regression", "--mode", "multi-model")
