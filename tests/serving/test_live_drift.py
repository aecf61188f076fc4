"""Drift of a server's answers, and the seconds of its live page."""

import json

import numpy as np
import pytest

from itrex_sweet.drift import MIN_ROWS
from itrex_sweet.serving.history import History
from itrex_sweet.serving.live import live_state
from itrex_sweet.serving.live_drift import LiveDrift, Reference
from itrex_sweet.serving.observer import Observer
from itrex_sweet.tasks import REGRESSION
from tests.serving.observed import EXITS, POLICY, add_model, answer, artifact, draw

MOVED = (0.1, 0.3, 0.6)


def reference() -> Reference:
    return Reference(artifact().calibration["traffic"])


def add(window: LiveDrift, rows: tuple[np.ndarray, ...], size: int = 37) -> None:
    for start in range(0, len(rows[0]), size):
        window.add(*(part[start : start + size] for part in rows), time=float(start))


@pytest.mark.parametrize("size", [1, 37, 5000])
def test_the_window_holds_the_last_answers(size):
    window = LiveDrift(reference(), window=1000)
    add(window, draw(3000, 1, MOVED), size)
    assert window.report().verdict == "recalibrate" and "exits changed" in window.report().why
    add(window, draw(1100, 2), size)
    assert window.report().verdict == "stable" and 900 <= window.rows <= 1050
    assert sum(window.exit_shares[1]) == pytest.approx(1.0)


def test_the_window_equals_a_comparison_of_its_answers():
    window, rows = LiveDrift(reference()), draw(700, 3)
    add(window, rows)
    assert window.report() == window.reference.compare(window.reference.count(*rows))


def test_few_answers_have_no_verdict():
    window = LiveDrift(reference())
    add(window, draw(MIN_ROWS - 1, 1))
    assert window.report() is None
    add(window, draw(1, 1))
    assert window.report().rows == MIN_ROWS


def test_answers_that_are_not_finite_are_left_out():
    window = LiveDrift(reference())
    window.add(np.array([0, -1, 1]), np.array([0, 0, 1]), np.array([0.9, np.nan, np.nan]), time=0.0)
    assert window.rows == 1


def test_memory_is_bounded():
    window = LiveDrift(reference(), window=400)
    add(window, draw(20_000, 1))
    assert len(window._blocks) <= 21 and len(window.history) == window.history.maxlen


def test_only_answers_under_the_stored_policy_are_compared():
    observer = Observer()
    model = add_model(observer)
    answer(observer, model, [0, 1], late=[False, True])
    answer(observer, model, [0], policy=POLICY.with_threshold(0.9))
    answer(observer, model, [0], quality=0.5)
    observer.count()
    assert model.drift.rows == 1 and model.rows.sum() == 4


def test_models_without_calibration_and_other_tasks():
    observer = Observer()
    model = add_model(observer, rows=0)
    answer(observer, model, [0])
    assert live_state(observer)["models"][0]["drift"] is None
    assert add_model(observer, "other thresholds", POLICY.with_threshold(0.9)).drift is None
    values = add_model(observer, "values", task=REGRESSION)
    answer(observer, values, [1, 2])
    observer.count()
    assert values.drift.rows == 2


# ---------------------------------------------------------------------------------------------------- live page


def test_the_state_of_the_page_is_json():
    observer = Observer()
    model = add_model(observer)
    labels, exits, scores = draw(300, 1)
    for label, exit_, score in zip(labels, exits, scores, strict=True):
        answer(observer, model, [int(exit_)], labels=[label], scores=[score])
    seen = observer.begin("/predict")
    seen.model = model
    seen.failed(503, "unhealthy")
    observer.count()
    observer.started -= 10  # so that the second of these requests has ended
    state = json.loads(json.dumps(live_state(observer), allow_nan=False))
    (found,) = state["models"]
    assert found["exits"] == list(EXITS) and sum(found["rows"]) == 300 and found["queue"] == [3, 1, 0]
    assert found["drift"]["report"]["verdict"] == "stable" and found["drift"]["rows"] == 300
    assert found["layers_saved"] == pytest.approx(((exits == 0) * 5 + (exits == 1) * 2).sum() / (6 * 300))
    assert sum(state["failures"]) == 1
    history = found["history"]
    assert len(history["requests"]) == len(history["rows"][0]) == len(history["latency_ms"][0]) == state["seconds"]


def test_seconds_are_counted_and_forgotten():
    history = History(2, seconds=10)
    history.add_latencies(np.array([3.1, 3.9, 5.0]), np.array([0.01, 0.03, 0.2]))
    history.add_rows(np.array([3.1, 3.1, 5.0]), np.array([0, 1, 1]))
    history.add_failures(np.array([4.5]))
    found = history.to_dict(6.2)  # seconds -3 to 5
    assert found["requests"] == [0, 0, 0, 0, 0, 0, 2, 0, 1]
    assert found["rows"] == [[0, 0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0, 1]]
    assert found["failures"] == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    p50, p95, p99 = (values[-1] for values in found["latency_ms"])
    assert p50 == pytest.approx(200, rel=0.16) and p50 <= p95 <= p99
    assert found["latency_ms"][0][0] is None
    assert found["last_minute"][2] == pytest.approx(200, rel=0.16)
    history.add_rows(np.array([2.0]), np.array([0]))  # ended before, counted later
    assert sum(map(sum, history.to_dict(6.2)["rows"])) == 4
    assert sum(history.to_dict(13.0)["requests"]) == 1  # second 5 is the only one left of 4 to 12
    assert sum(history.to_dict(1000.0)["requests"]) == 0
    history.add_rows(np.array([900.0]), np.array([0]))  # too old
    assert sum(map(sum, history.to_dict(1000.0)["rows"])) == 0
