"""Tests of lower quality under load, through HTTP."""

import pytest

import itrex_sweet
from itrex_sweet.serving.settings import Settings
from tests.serving.slow_engine import Gate
from tests.serving.test_server_limits import Asking, occupied, until
from tests.tiny_artifacts import sign, tiny_artifact, tiny_tokenizer

THRESHOLDS = ((1.0, 1.0), (0.9, 0.9), (0.5, 0.5), (0.0, 0.0))
COSTS = (4.0, 3.0, 2.0, 1.0)
FLOOR = 1 / 3  # of the third candidate, the fastest certified one
TEXT = "the room was good"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes an artifact with a calibrated curve, of which the first three policies are certified."""
    folder = tmp_path_factory.mktemp("calibrated") / "own"
    artifact = tiny_artifact(folder, tokenizer=tiny_tokenizer())
    candidates = [
        {"thresholds": list(thresholds), "mean_layers": cost}
        for thresholds, cost in zip(THRESHOLDS, COSTS, strict=True)
    ]
    policy = artifact.policy.with_threshold(THRESHOLDS[0])
    sign(folder, policy=policy.to_dict(), calibration={"candidates": candidates, "certified": 3})
    return folder


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def degrading(start, folder, gate):
    """Starts a server for which every wait is too long, so that load brings quality to its floor at once."""
    return start({"own": folder}, Settings(under_load="degrade", target_ms=1e-6, max_waiting_rows=4), gate.load)


def test_answers_say_which_quality_load_left_them(degrading, folder, gate):
    first = occupied(degrading, gate)
    waiting = [Asking(degrading, {"inputs": TEXT}) for _ in range(6)]  # more than may wait at the floor
    own = Asking(degrading, {"inputs": TEXT, "threshold": 0.7})
    scheduler = degrading.server.models.get().scheduler
    until(lambda: scheduler.snapshot().unanswered == 8)
    gate.open()
    assert first.result() == own.result() == 200 and {each.result() for each in waiting} == {200}
    assert "x-quality" not in first.replied  # nothing waited when it began
    assert "x-quality" not in own.replied  # its client has chosen
    classifier = itrex_sweet.load(folder)
    expected = classifier.predict([TEXT], policy=classifier.policy.with_threshold(THRESHOLDS[2]), top_k="all")[0]
    for each in waiting:
        assert float(each.replied["x-quality"]) == pytest.approx(FLOOR, abs=1e-3)  # not the fastest candidate
        assert each.content[0]["exit_layer"] == expected["exit_layer"]
        assert each.content[0]["score"] == pytest.approx(expected["labels"][0]["score"], abs=1e-5)
    assert scheduler.snapshot().degraded == 6


def test_requests_are_refused_at_the_floor_only(degrading, gate):
    scheduler = degrading.server.models.get().scheduler
    first = occupied(degrading, gate)
    many = [Asking(degrading, {"inputs": TEXT}) for _ in range(8)]  # the floor is not reached: none is refused
    until(lambda: scheduler.snapshot().unanswered == 9)
    gate.open()
    assert first.result() == 200 and {each.result() for each in many} == {200}
    until(lambda: scheduler.snapshot().unanswered == 0)
    busy = occupied(degrading, gate)
    few = [Asking(degrading, {"inputs": TEXT}) for _ in range(3)]
    until(lambda: scheduler.snapshot().unanswered == 4)
    status, headers, content = degrading.request("POST", "/predict", {"inputs": TEXT})
    assert status == 429 and int(headers["retry-after"]) >= 1 and content["error_type"] == "Overloaded"
    gate.open()
    assert busy.result() == 200 and {each.result() for each in few} == {200}
