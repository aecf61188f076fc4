"""`itrex-sweet calibrate`: the table, the record, and what is refused."""

import shutil

import pytest

from itrex_sweet import open_artifact
from itrex_sweet.artifact import copy_artifact
from tests.cli.conftest import sentences


@pytest.fixture
def copied(artifact, tmp_path):
    shutil.copytree(artifact, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    """Texts, many of them alike, and labels 0 to 2."""
    path = tmp_path_factory.mktemp("held-out") / "rows.csv"
    lines = [f"{row['text']},{place % 3}" for place, row in enumerate(sentences(300, 5))]
    path.write_text("\n".join(["text,label", *lines]))
    return path


def test_a_budget_of_layers(run, copied, held_out, tmp_path):
    finished = run("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--output", tmp_path / "out")
    assert finished.status == 0, finished.err
    for part in ("thresholds", "layers", "temperatures", "calibration error per exit", "no promise", "→"):
        assert part in finished.out
    assert open_artifact(tmp_path / "out").calibration["budget"]["max_layers"] == 3.9
    assert open_artifact(copied).calibration == {}


def test_json_is_what_the_artifact_records(run, copied, held_out):
    argv = ("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--criterion", "margin", "--json")
    facts = run(*argv).json()
    assert facts == open_artifact(copied).calibration
    assert facts["criterion"] == open_artifact(copied).policy.criterion == "margin"


def test_what_cannot_be_certified_writes_nothing(run, copied, held_out):
    before = (copied / "sweet_config.json").read_bytes()
    finished = run("calibrate", copied, "--data", held_out, "--max-agreement-drop", 0.002)
    assert finished.status == 1 and "cannot be certified" in finished.err
    assert (copied / "sweet_config.json").read_bytes() == before


@pytest.mark.parametrize(("allowed", "verdict"), [(0.99, ": held."), (-1.0, ": not held on these rows.")])
def test_evaluate_says_whether_the_promise_held(run, copied, held_out, allowed, verdict):
    artifact = open_artifact(copied)
    budget = {"max_accuracy_drop": allowed, "confidence": 0.95}
    copy_artifact(artifact, copied, calibration={"budget": budget})
    finished = run("evaluate", copied, "--data", held_out, "--timed-rows", 0)
    assert finished.status == 0, finished.err
    assert "points of accuracy with 95 % confidence; lost" in finished.out and verdict in finished.out
    assert "promised" not in run("evaluate", copied, "--data", held_out, "--timed-rows", 0, "--threshold", 0.9).out


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ((), 1, "a budget names"),
        (("--max-accuracy-drop", 2), 2, "a share lies in [0, 1]"),
        (("--max-layers", 1, "--criterion", "luck"), 2, "invalid choice"),
        (("--max-layers", 1, "--label-column", "points"), 1, "points"),
    ],
)
def test_wrong_arguments_are_named(run, copied, held_out, more, status, message):
    finished = run("calibrate", copied, "--data", held_out, *more)
    assert finished.status == status and message in finished.err
