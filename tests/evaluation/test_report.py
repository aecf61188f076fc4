"""The per-exit table matches the executor, and figures computed by hand."""

import itertools
import json

import numpy as np
import pytest

from itrex_sweet.errors import InputError
from itrex_sweet.evaluation import ExitOutcomes, evaluate, evaluate_models, evaluation
from itrex_sweet.evaluation.curve import threshold_grid
from itrex_sweet.evaluation.report import make_report, single_exit_policy
from itrex_sweet.policy import Policy

# Two labels, two exits. The confidence of (1, 0) is 0.731, of (2, 0) 0.881, of (4, 0) 0.982.
BY_HAND = ExitOutcomes(
    logits=np.array(
        [
            [[4.0, 0.0], [0.0, 1.0]],  # confident at exit 2: label 0
            [[1.0, 0.0], [0.0, 2.0]],  # not confident; label 1 at exit 6
            [[0.0, 4.0], [0.0, 4.0]],  # confident: label 1
            [[np.nan, 0.0], [4.0, 0.0]],  # not finite at exit 2; label 0 at exit 6
            [[1.0, 0.0], [np.inf, 0.0]],  # not confident, and not finite at exit 6
        ],
        dtype=np.float32,
    ),
    labels=np.array([0, 1, 0, 0, 0]),
    exits=(2, 6),
    layers_run=(2, 6),
)


def test_report_by_hand():
    report = make_report(BY_HAND, Policy.uniform(2, 0.9))
    first, last = report.exits
    assert (first.exit, last.exit) == (2, 6)
    # All rows at exit 2: 0 and 4 are correct; 1, 2 and 3, which has no answer, are not.
    assert first.metric == pytest.approx(2 / 5)
    # All rows at exit 6: 1 and 3 are correct.
    assert last.metric == pytest.approx(2 / 5)
    # Rows 0 and 2 leave at exit 2, where 0 is correct; 1, 3 and 4 at exit 6, where 1 and 3 are.
    assert first.share_leaving == pytest.approx(2 / 5) and first.metric_of_leaving == pytest.approx(1 / 2)
    assert last.share_leaving == pytest.approx(3 / 5) and last.metric_of_leaving == pytest.approx(2 / 3)
    assert first.mean_confidence == pytest.approx((0.98201 + 0.73106 + 0.98201 + 0.73106) / 4, abs=1e-4)
    assert report.metric == pytest.approx(3 / 5)
    assert report.mean_layers == pytest.approx((2 + 6 + 2 + 6 + 6) / 5)
    assert report.unanswered == 1 and report.rows == 5


def test_exit_without_leaving_rows_has_no_metric():
    report = make_report(BY_HAND, Policy.uniform(2, 1.0))
    assert report.exits[0].share_leaving == 0.0 and report.exits[0].metric_of_leaving is None
    assert "–" in report.table()


def test_report_matches_the_executor(model, texts, labels, outcomes):
    half = threshold_grid(outcomes, model.policy)[10]
    report = make_report(outcomes, model.policy.with_threshold(half))
    predictions = model.predict(texts, threshold=half)
    left = np.array([row["exit_layer"] for row in predictions])
    right = np.array([row["label"] == f"LABEL_{label}" for row, label in zip(predictions, labels, strict=True)])
    assert 0 < (left == left.max()).sum() < len(left), "the policy must let some leave and keep some"
    layers = dict(zip(model.artifact.exits, model.artifact.layers_run, strict=True))
    assert report.metric == pytest.approx(right.mean())
    assert report.mean_layers == pytest.approx(np.mean([layers[exit_] for exit_ in left]))
    for row in report.exits:
        here = left == row.exit
        assert row.layers_run == layers[row.exit]
        assert row.share_leaving == pytest.approx(here.mean())
        if here.any():
            assert row.metric_of_leaving == pytest.approx(right[here].mean())


def test_single_exit_policy(model, texts):
    for place, exit_ in enumerate(model.artifact.exits):
        policy = single_exit_policy(place, model.policy)
        assert policy.temperatures == model.policy.temperatures
        answers = model.executor.run(model.read(texts), policy)
        assert set(answers.exit_index) == {place}
        assert set(model.exit_layers(answers)) == {exit_}


def test_metric_of_an_exit_matches_the_executor(model, texts, labels, outcomes):
    report = make_report(outcomes, model.policy)
    for place, row in enumerate(report.exits):
        answers = model.executor.run(model.read(texts), single_exit_policy(place, model.policy))
        assert row.metric == pytest.approx(np.mean(answers.logits.argmax(axis=1) == np.array(labels)))
        assert row.mean_confidence == pytest.approx(answers.confidence.mean(), rel=1e-4)


def test_other_metrics():
    def share_of_zeros(predictions, labels):
        return float((predictions == 0).mean())

    report = make_report(BY_HAND, Policy.uniform(2, 0.9), metric=share_of_zeros, metric_name="zeros")
    assert report.exits[0].metric == pytest.approx(3 / 5) and report.metric == pytest.approx(2 / 5)
    assert "zeros" in report.table() and "accuracy" not in report.table()


def test_evaluation_is_serializable(model, texts, labels):
    evaluation = evaluate(model, texts, labels, "tiny", points=6, timed_points=3, timed_rows=20, repeats=1)
    written = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert written["name"] == "tiny" and written["report"]["rows"] == len(texts)
    assert all(row["milliseconds"] > 0 for row in written["report"]["exits"])
    assert written["report"]["milliseconds"] > 0
    assert written["timing"] == {"rows": 20, "repeats": 1, "batch_size": 16}
    assert written["machine"]["usable_cores"] >= 1 and "torch" in written["versions"]
    timed = [point["milliseconds"] is not None for point in written["curve"]["points"]]
    assert timed[0] and timed[-1] and sum(timed) <= 3


def test_timing_can_be_disabled(model, texts, labels):
    evaluation = evaluate(model, texts, labels, timed_rows=0)
    assert evaluation.report.milliseconds is None and not evaluation.timing
    assert all(point.milliseconds is None and point.speedup is None for point in evaluation.curve.points)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 90), (1000.0, 64)])
def test_fewer_rows_of_slow_models_are_timed(model, texts, labels, monkeypatch, seconds, expected):
    calls = itertools.count()
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: seconds * next(calls))
    monkeypatch.setattr(evaluation, "milliseconds_per_row", lambda tasks, rows, repeats: dict.fromkeys(tasks, 1.0))
    assert evaluate(model, texts, labels).timing["rows"] == expected
    assert evaluate(model, texts, labels, timed_rows=70).timing["rows"] == 70


@pytest.mark.parametrize("bad", [[0], [], [0] * 89 + [3], [0] * 89 + [-1]])
def test_invalid_labels_are_rejected(model, texts, bad):
    with pytest.raises(InputError, match="label"):
        ExitOutcomes.observe(model, model.read(texts), bad)


def test_equivalent_policies_are_timed_once(model, texts, labels):
    evaluation = evaluate(model, texts, labels, points=5, timed_points=3, timed_rows=10, repeats=1)
    exits, points = evaluation.report.exits, evaluation.curve.points
    assert exits[0].milliseconds == points[0].milliseconds, "threshold 0 is the first exit alone"
    assert exits[-1].milliseconds == points[-1].milliseconds, "threshold 1 is the last"
    assert points[-1].speedup == 1.0


def test_models_are_timed_separately(model, texts, labels, monkeypatch):
    def counted(tasks, rows, repeats):
        assert rows == 10
        return {task: 100.0 * (task[0] == "b") + place for place, task in enumerate(tasks)}

    monkeypatch.setattr(evaluation, "milliseconds_per_row", counted)
    first, second = evaluate_models({"a": model, "b": model}, texts, labels, points=5, timed_rows=10)
    assert first.report.milliseconds < 100 <= second.report.milliseconds
    for found, of_b in ((first, False), (second, True)):
        times = [exit_.milliseconds for exit_ in found.report.exits] + [
            point.milliseconds for point in found.curve.points if point.milliseconds is not None
        ]
        assert all((time >= 100) == of_b for time in times)
