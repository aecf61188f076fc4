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
    finished = run(
        "calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers", "--output", tmp_path / "out"
    )
    assert finished.status == 0, finished.err
    for part in ("thresholds", "layers", "temperatures", "calibration error per exit", "no promise", "→"):
        assert part in finished.out
    assert open_artifact(tmp_path / "out").calibration["budget"]["max_layers"] == 3.9
    assert open_artifact(copied).calibration == {}


def test_a_budget_of_time_and_a_picture(run, copied, held_out, tmp_path):
    argv = ("calibrate", copied, "--data", held_out, "--max-latency-ms", 1000, "--plot", tmp_path / "curve.png")
    finished = run(*argv)
    assert finished.status == 0, finished.err
    assert "milliseconds per row in batches of 1, on" in finished.out and "ms/row" in finished.out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    costs = open_artifact(copied).costs
    assert costs["batch_sizes"] == [1, 8, 32] and costs["processor"]
    # The next one takes the table that is there.
    assert run(*argv).status == 0 and open_artifact(copied).costs == costs
    impossible = run("calibrate", copied, "--data", held_out, "--max-latency-ms", 1e-6)
    assert impossible.status == 1 and "max_latency_ms=1e-06" in impossible.err


def test_the_curve_is_walked_by_predict(run, copied, held_out, tmp_path):
    assert run("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers").status == 0
    texts = tmp_path / "texts.txt"
    texts.write_text("the soup was good\nnever again\n" * 20)

    def layers(*stopping):
        return [row["exit_layer"] for row in run("predict", copied, texts, *stopping).json_lines()]

    assert set(layers("--quality", 1)) == {4}
    assert sum(layers("--quality", 0)) <= sum(layers("--quality", 0.5)) <= sum(layers("--quality", 1))
    assert max(layers("--quality", 1, "--max-exit", 2)) == 2
    hurried = run("predict", copied, texts, "--threshold", 1, "--deadline-ms", 1e-6).json_lines()
    assert {(row["exit_layer"], row["stopped_by"]) for row in hurried} == {(1, "deadline")}
    assert "max_exit=3" in run("predict", copied, texts, "--max-exit", 3).err


def test_drift_of_what_predict_wrote(run, copied, held_out, tmp_path):
    argv = ("calibrate", copied, "--data", held_out, "--max-layers", 3.9, "--unit", "layers")
    assert run("drift", copied, held_out).status == 1  # not calibrated yet
    assert run(*argv).status == 0
    same, other = tmp_path / "same.jsonl", tmp_path / "other.jsonl"
    same.write_text(run("predict", copied, held_out).out)
    finished = run("drift", copied, same)
    assert finished.status == 0 and finished.out.startswith("stable: 300 answers"), finished.err
    texts = tmp_path / "texts.txt"
    texts.write_text("awful\n" * 300)
    other.write_text(run("predict", copied, texts).out)
    moved = run("drift", copied, other, "--json")
    assert moved.status == 3 and moved.json()["verdict"] == "recalibrate"
    assert "Calibrate on rows of today" in run("drift", copied, other).out
    same.write_text("no json\n")
    assert "line 1" in run("drift", copied, same).err and "cannot be read" in run("drift", copied, tmp_path / "no").err


def test_json_is_what_the_artifact_records(run, copied, held_out):
    layers = ("--max-layers", 3.9, "--unit", "layers")
    argv = ("calibrate", copied, "--data", held_out, *layers, "--criterion", "margin", "--json")
    facts = run(*argv).json()
    assert facts == open_artifact(copied).calibration
    assert facts["criterion"] == open_artifact(copied).policy.criterion == "margin"


def test_what_cannot_be_certified_writes_nothing(run, copied, held_out):
    before = (copied / "sweet_config.json").read_bytes()
    finished = run("calibrate", copied, "--data", held_out, "--max-agreement-drop", 0.002)
    assert finished.status == 1 and "cannot be certified" in finished.err
    assert (copied / "sweet_config.json").read_bytes() == before


@pytest.mark.parametrize(("allowed", "verdict"), [(0.99, ": held."), (-1.0, ": not held on these rows.")])
@pytest.mark.parametrize(
    ("budget", "more", "what"),
    [
        ({"max_accuracy_drop": None}, (), "points of accuracy with 95 % confidence; lost"),
        ({"max_agreement_drop": None}, (), "% of agreement with full depth with 95 % confidence; lost"),
        ({"max_metric_drop": None, "metric": "f1"}, ("--metric", "f1"), "points of f1 with 95 % confidence; lost"),
    ],
)
def test_evaluate_says_whether_the_promise_held(run, copied, held_out, budget, more, what, allowed, verdict):
    budget = {name: allowed if value is None else value for name, value in budget.items()}
    copy_artifact(open_artifact(copied), copied, calibration={"budget": {**budget, "confidence": 0.95}})
    argv = ("evaluate", copied, "--data", held_out, "--timed-rows", 0)
    finished = run(*argv, *more)
    assert finished.status == 0, finished.err
    assert what in finished.out and verdict in finished.out
    assert "promised" not in run(*argv, *more, "--threshold", 0.9).out
    if more:
        assert "promised" not in run(*argv).out, "that metric was not evaluated"


def test_the_metrics_of_evaluate_are_those_that_there_are():
    from itrex_sweet.commands.evaluate import METRIC_NAMES
    from itrex_sweet.evaluation.metrics import METRICS

    assert tuple(METRICS) == METRIC_NAMES


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ((), 1, "a budget names"),
        (("--max-accuracy-drop", 2), 2, "a share lies in [0, 1]"),
        (("--max-layers", 1, "--criterion", "luck"), 2, "invalid choice"),
        (("--max-layers", 1, "--criterion", "learned"), 1, "--learn-to-exit"),
        (("--max-latency-ms", 1, "--unit", "layers"), 1, "budget of time"),
        (("--max-metric-drop", 0.1), 1, "go together"),
        (("--max-layers", 1, "--label-column", "points"), 1, "points"),
    ],
)
def test_wrong_arguments_are_named(run, copied, held_out, more, status, message):
    finished = run("calibrate", copied, "--data", held_out, *more)
    assert finished.status == status and message in finished.err
