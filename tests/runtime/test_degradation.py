"""Tests of load shedding by quality."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.errors import ConfigError, Overloaded
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.degradation import Degradation, Level
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.scheduler import Scheduler

POLICIES = [Policy((value, value), (1.0,) * 3) for value in (1.0, 0.8, 0.6, 0.4)]
COSTS = (4.0, 3.0, 2.0, 1.0)
LEVELS = [
    Level(policy, None if place == 0 else 1 - place / 3, cost / 4)
    for place, (policy, cost) in enumerate(zip(POLICIES, COSTS, strict=True))
]


class CalibratedArtifact:
    """The part of an artifact that `Degradation` reads."""

    directory = "here"
    policy = POLICIES[1]

    def __init__(self, certified: int | None = 3):
        candidates = [
            {"thresholds": list(policy.thresholds), "mean_layers": cost}
            for policy, cost in zip(POLICIES, COSTS, strict=True)
        ]
        self.calibration = {"candidates": candidates, "certified": certified}


waits = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20)


@given(waits=waits, more=st.floats(0.0, 1.0))
def test_quality_never_rises_with_the_wait(waits, more):
    first, second = Degradation(LEVELS, 0.1), Degradation(LEVELS, 0.1)
    for wait in waits:
        assert second.update(1, wait + more).cost <= first.update(1, wait).cost


@given(waits=waits)
def test_level_meets_the_target_or_is_the_floor(waits):
    degradation = Degradation(LEVELS, 0.1)
    for wait in waits:
        level = degradation.update(1, wait)
        assert wait * level.cost <= 0.1 or degradation.is_at_floor
        better = LEVELS[LEVELS.index(level) - 1] if level is not LEVELS[0] else None
        assert better is None or wait * better.cost > 0.7 * 0.1


@given(wait=st.floats(0.0, 1.0))
def test_quality_does_not_alternate(wait):
    degradation = Degradation(LEVELS, 0.1)
    degradation.update(1, 1.0)
    level = degradation.update(1, wait)
    assert degradation.update(1, 0.9 * wait).cost >= level.cost
    degradation = Degradation(LEVELS, 0.1)
    level = degradation.update(1, wait)
    assert degradation.update(1, 0.8 * wait) is level or 0.8 * wait * level.cost <= 0.07


@given(waits=waits, now=st.floats(0.0, 1.0))
def test_preview_is_the_next_level_and_changes_nothing(waits, now):
    degradation, without = Degradation(LEVELS, 0.1), Degradation(LEVELS, 0.1)
    for wait in waits:
        degradation.preview(1, now)
        assert degradation.update(1, wait) is without.update(1, wait)
    assert degradation.preview(1, now) is degradation.update(1, now)


def test_floor_is_the_fastest_certified_candidate_or_given():
    artifact = CalibratedArtifact()
    assert [level.policy for level in Degradation.of(artifact, POLICIES[0]).levels] == POLICIES[:3]
    scale = Degradation.of(artifact, POLICIES[0], floor=0.0).levels
    assert [level.policy for level in scale] == POLICIES and [level.cost for level in scale] == [1, 0.75, 0.5, 0.25]
    assert scale[0].quality is None and scale[-1].quality == 0.0
    limited = dataclasses.replace(POLICIES[1], max_exit_index=1)
    assert all(level.policy.max_exit_index == 1 for level in Degradation.of(artifact, limited, floor=0.0).levels)


def test_scale_that_cannot_fall_is_refused():
    with pytest.raises(ConfigError, match="certified"):
        Degradation.of(CalibratedArtifact(None), POLICIES[0])
    with pytest.raises(ConfigError, match="as fast as the floor"):
        Degradation.of(CalibratedArtifact(), POLICIES[2])
    with pytest.raises(ConfigError, match=r"floor=1\.5"):
        Degradation.of(CalibratedArtifact(), POLICIES[0], floor=1.5)
    with pytest.raises(ConfigError, match="candidates"):
        Degradation.of(CalibratedArtifact(), Policy((0.5, 0.5), (1.0,) * 3), floor=0.0)


@pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
def test_answers_say_under_which_policy_load_put_them(backend_of):
    backend = backend_of("bert static on native")
    random = np.random.default_rng(0)
    batches = [TokenBatch.from_rows([random.integers(5, 60, 6).tolist()]) for _ in range(60)]
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    scheduler = Scheduler(
        backend, POLICIES[0], 2, max_waiting_rows=20, degradation=Degradation(LEVELS, 0.2), clock=clock
    )
    warm = scheduler.submit(batches[0])
    own = None
    while scheduler.step():
        pass
    assert warm.result(0).request.quality is None
    futures = []
    for place, batch in enumerate(batches[:20]):
        if place == 10:
            own = scheduler.submit(batch, Request(POLICIES[3]))
        else:
            futures.append((batch, scheduler.submit(batch)))
    while scheduler.step():
        pass
    qualities = {future.result(0).request.quality for _, future in futures}
    assert len(qualities - {None}) > 0 and own.result(0).request.quality is None
    executor = Executor(backend, POLICIES[0])
    for batch, future in futures:
        answers = future.result(0)
        np.testing.assert_array_equal(answers.logits, executor.run(batch, answers.request.policy).logits)
    assert scheduler.snapshot().degraded == sum(future.result().request.quality is not None for _, future in futures)
    with pytest.raises(Overloaded):  # at the floor
        for _ in range(10):
            for batch in batches:
                scheduler.submit(batch)
            scheduler.step()


@pytest.mark.parametrize("end", ["answered", "cancelled", "expired", "closed", "forgotten"])
def test_quality_recovers_without_a_further_request(end, backend_of):
    backend, now = backend_of("bert"), [0.0]
    row = TokenBatch.from_rows([[5, 6]])

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    scheduler = Scheduler(backend, POLICIES[0], 1, degradation=Degradation(LEVELS, 20.0), clock=clock)
    scheduler.submit(row)
    while scheduler.step():
        pass  # learns the time of a row
    assert scheduler.snapshot().quality == 1.0
    request = Request(POLICIES[0], deadline=now[0] + 200.0, drop_expired=True)
    futures = [scheduler.submit(row, request) for _ in range(60)]
    assert scheduler.snapshot().quality == 0.0  # of the next request, although none has started
    scheduler.step()
    assert scheduler.snapshot().quality == 0.0
    if end == "answered":
        while scheduler.step():
            pass
    elif end == "cancelled":
        assert [future.cancel() for future in futures]
    elif end == "expired":
        now[0] += 1000.0
        scheduler.step()
    elif end == "closed":
        scheduler.close()
    else:
        scheduler.reset_in_child()
    assert scheduler.snapshot().unanswered <= 1 and scheduler.snapshot().quality == 1.0
