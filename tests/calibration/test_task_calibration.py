"""Calibration, evaluation and comparison of multi-label and regression models."""

import functools
import itertools

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification, open_artifact
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.calibration.drift import drift, traffic_summary
from itrex_sweet.calibration.guarantees import PairedPredictions, exit_losses, loss_counts
from itrex_sweet.calibration.pruning import find_useful_exits
from itrex_sweet.calibration.temperature import as_binary, fit_temperature
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation import evaluate
from itrex_sweet.evaluation.labels import checked_labels
from itrex_sweet.evaluation.model_card import card_after_calibration
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, TASKS
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

TEXTS = [" ".join(words) for words in itertools.product(WORDS[:12], WORDS[5:20], WORDS[3:7])]
COUNT = 300


@functools.cache
def outputs(task: str):
    """Returns outputs of three exits whose confidence orders their errors, and labels: logits, correctness logits, "
    "labels."""
    random = np.random.default_rng(0)
    ease = random.uniform(size=COUNT)
    if task == MULTI_LABEL:
        labels = random.integers(0, 2, (COUNT, 3))
        logits = np.repeat(np.where(labels == 1, 4.0, -4.0)[:, None], 3, axis=1) * (0.2 + ease[:, None, None])
        hard = ease < 0.4  # the first exit gets one label wrong, and is unsure of it
        logits[hard, 0, 0] *= -0.3
        return logits.astype(np.float32), None, labels
    labels = random.uniform(0, 5, COUNT).astype(np.float32)
    error = np.where(ease < 0.4, 1.0, 0.05)[:, None] * np.array([1.0, 0.3, 0.0])
    logits = (labels[:, None] + error)[..., None].astype(np.float32)
    return logits, -np.log(error + 1e-3).astype(np.float32), labels


@pytest.fixture(params=[MULTI_LABEL, REGRESSION])
def model(request, tmp_path, monkeypatch):
    tiny_artifact(tmp_path / "model", tokenizer=tiny_tokenizer(), task=request.param)
    logits, certainty, _ = outputs(request.param)
    monkeypatch.setattr(
        "itrex_sweet.evaluation.outcomes.outputs_at_every_exit",
        lambda executor, batch, description="": (logits[: len(batch)], certainty),
    )
    return SweetModelForSequenceClassification.from_pretrained(tmp_path / "model", backend="torch")


def rows(model, labelled: bool = True) -> Rows:
    labels = outputs(model.artifact.task.name)[2].tolist() if labelled else None
    return Rows(TEXTS[:COUNT], labels, source="held-out.csv")


def budget_for(model, drop: str) -> Budget:
    is_regression = model.artifact.task.name == REGRESSION
    return Budget(**{drop: 0.05}, tolerance=0.2 if is_regression else None)


@pytest.mark.parametrize("drop", ["max_agreement_drop", "max_accuracy_drop"])
def test_easy_rows_leave_early_and_hard_ones_do_not(model, drop, tmp_path):
    calibration = calibrate(model, rows(model), budget_for(model, drop), unit="layers")
    chosen = calibration.candidates[calibration.chosen]
    assert chosen.counts.lost <= 0.05 * chosen.counts.rows and chosen.mean_layers < 3.0
    assert calibration.policy.task == model.artifact.task.name
    metrics = calibration.facts["metrics"]
    assert set(metrics) == set(model.artifact.task.metrics)
    assert all(values["full"] >= 0.99 or name == "negative_mse" for name, values in metrics.items())
    if model.artifact.task.name == REGRESSION:
        assert calibration.policy.tolerance == 0.2 and set(calibration.policy.temperatures) == {1.0}
    else:
        assert set(calibration.policy.temperatures) != {1.0}
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    assert written.policy == calibration.policy
    card = card_after_calibration(written)
    assert "within 0.2" in card if model.artifact.task.name == REGRESSION else "exact match is" in card
    assert open_artifact(written.directory).calibration["traffic"] == written.calibration["traffic"]


def live_predictions(model, seed: int, changed: bool) -> list[dict]:
    """Returns predictions for a sample of the rows of `outputs`, in the form of `model.predict`."""
    logits, certainty, _ = outputs(model.artifact.task.name)
    sample = np.random.default_rng(seed).choice(COUNT, 1000)
    seen = ExitOutcomes(
        (0.2 * logits - 1.0 if changed else logits)[sample],
        np.zeros((1000, 3)),
        (1, 2, 4),
        (1, 2, 4),
        certainty if certainty is None else certainty[sample],
        task=model.artifact.task,
    )
    policy, names = model.artifact.policy, model.artifact.label_names
    found = []
    for exit_index, logits in zip(seen.leaving(policy), seen.logits, strict=True):
        chosen = logits[exit_index].astype(np.float64)
        if certainty is None:
            scores = 1 / (1 + np.exp(-chosen / policy.temperatures[exit_index]))
            on = [{"label": name, "score": score} for name, score in zip(names, scores, strict=True) if score > 0.5]
            found.append({"labels": on, "exit_layer": seen.exits[exit_index]})
        else:
            found.append({"score": float(chosen[0]), "exit_layer": seen.exits[exit_index]})
    return found


def test_drift_compares_sets_of_labels_and_values(model, tmp_path):
    is_regression = model.artifact.task.name == REGRESSION
    calibration = calibrate(model, rows(model), budget_for(model, "max_agreement_drop"), unit="layers")
    written = calibration.write(model.artifact, tmp_path / "calibrated")
    calibrated = SweetModelForSequenceClassification.from_pretrained(written.directory, backend="torch")
    for seed in range(3):
        same = drift(written, live_predictions(calibrated, seed, changed=False))
        assert same.verdict == "stable" and same.rows == 1000, same
    changed = drift(written, live_predictions(calibrated, 0, changed=True))
    assert changed.verdict == "recalibrate" and "scores changed" in changed.why
    assert ("labels changed" in changed.why) != is_regression and (changed.labels == 0.0) == is_regression
    good = live_predictions(calibrated, 0, changed=False)
    for wrong in ({"label": "LABEL_0", "score": 0.5}, {"labels": [{"label": "other", "score": 0.5}]}, {"score": "2"}):
        with pytest.raises(InputError, match="row 7 is not a prediction of this model"):
            drift(written, [*good[:7], {**wrong, "exit_layer": 1}, *good[8:]])


def test_the_summary_counts_frequent_sets_apart():
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, (2000, 2, 6)) - 0.3 * np.arange(6)
    seen = ExitOutcomes(logits.astype(np.float32), np.zeros((2000, 6)), (1, 2), (1, 2), task=TASKS[MULTI_LABEL])
    summary = traffic_summary(seen, Policy.uniform(2, 1.0, task=MULTI_LABEL))
    counts, on = np.array(summary["rows"]).sum(axis=(1, 2)), logits[:, 1] > 0
    assert len(summary["sets"]) == 15 and len(counts) == 16 and counts.sum() == 2000
    for labels, count in zip(summary["sets"], counts, strict=False):
        assert count == (on == np.isin(np.arange(6), labels)).all(axis=1).sum()
    assert counts[-1] > 0 and list(counts[:-1]) == sorted(counts[:-1], reverse=True)


def test_budget_of_a_metric_and_of_layers(model):
    name = model.artifact.task.metrics[1]
    calibration = calibrate(
        model, rows(model), Budget(max_metric_drop=0.05, metric=name, confidence=0.9), unit="layers"
    )
    assert calibration.candidates[calibration.chosen].mean_layers < 4
    assert calibrate(model, rows(model, False), Budget(max_layers=2.5), unit="layers").policy.thresholds != (1.0, 1.0)
    with pytest.raises(ConfigError, match=f"'f1' does not fit {model.artifact.task.name}"):
        calibrate(model, rows(model), Budget(max_metric_drop=0.05, metric="f1"), unit="layers")


def test_useful_exits(model):
    is_regression = model.artifact.task.name == REGRESSION
    gains = find_useful_exits(model, rows(model, False), unit="layers", tolerance=0.2 if is_regression else None)
    assert gains.agreements[-1] == 1.0 and gains.agreements[0] < 0.7 and 1 in gains.kept
    with pytest.raises(ConfigError, match="needs tolerance" if is_regression else "only regression has one"):
        find_useful_exits(model, rows(model, False), unit="layers", tolerance=None if is_regression else 0.2)


def test_a_tolerance_belongs_to_regression_only(model):
    if model.artifact.task.name == REGRESSION:
        with pytest.raises(ConfigError, match="needs tolerance"):
            calibrate(model, rows(model), Budget(max_agreement_drop=0.05), unit="layers")
    else:
        with pytest.raises(ConfigError, match="only regression has one"):
            calibrate(model, rows(model), Budget(max_agreement_drop=0.05, tolerance=0.1), unit="layers")


def test_evaluation_reports_the_tasks_metrics(model):
    task = model.artifact.task
    evaluation = evaluate(model, TEXTS[:COUNT], outputs(task.name)[2].tolist(), timed_rows=0)
    report = evaluation.report
    assert report.metric_name == task.metrics[0] and set(report.other_metrics) == set(task.metrics[1:])
    assert report.exits[-1].metric == pytest.approx(1.0) and report.exits[0].metric < 0.99
    assert (report.agreement is None) == (task.name == REGRESSION)
    headings, cells = report.cells()
    assert len(cells[0]) == len(headings) == len(cells[-1]) and task.metrics[2] in report.table()
    assert evaluation.to_dict()["report"]["exits"][0]["other_metrics"].keys() == set(task.metrics[1:])


def test_losses_compare_sets_of_labels_and_values_within_the_tolerance():
    sets = np.array([[[1, 0], [1, 1]], [[0, 1], [0, 1]], [[1, 1], [0, 0]]])
    labels = np.array([[1, 0], [0, 1], [0, 0]])
    task = TASKS[MULTI_LABEL]
    assert exit_losses(sets, None, None, task).tolist() == [[1, 0], [0, 0], [1, 0]]
    assert exit_losses(sets, labels, None, task).tolist() == [[-1, 0], [0, 0], [1, 0]]
    values, task = np.array([[1.0, 1.5], [2.0, 2.6], [np.nan, 1.0]]), TASKS[REGRESSION]
    assert exit_losses(values, None, None, task, 0.5).tolist() == [[0, 0], [1, 0], [1, 0]]
    pairs = PairedPredictions(values[:, 0], values[:, 1], None, task, 0.5)
    assert (loss_counts(pairs).lost, loss_counts(pairs).won) == (2, 0)


def test_binary_temperature_recovers_the_scale_of_the_logits():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (4000, 3))
    labels = (random.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(*as_binary(3 * logits, labels)) == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    "task, labels, message",
    [
        (MULTI_LABEL, [[1, 0, 1], [1, 0]], "row 1 of the data is not a vector of 3"),
        (MULTI_LABEL, [[1, 0], [1, 0]], r"shape \(2, 2\) for 2 rows; expected a vector of 3"),
        (MULTI_LABEL, [[1, 0, 0], [1, 2, 0]], "of row 1 of the data: must be 1"),
        (REGRESSION, [1.0, float("nan")], "of row 1 of the data: must be a finite number"),
        (REGRESSION, ["a", "b"], "are not numbers"),
        (REGRESSION, [[1.0, 2.0]] * 2, "expected one number per row"),
    ],
)
def test_labels_that_do_not_fit_are_refused(task, labels, message):
    with pytest.raises(InputError, match=message):
        checked_labels(labels, 2, 3, "the data", TASKS[task])
