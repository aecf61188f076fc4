"""Tests of short steps: rows that a thread computes between other work while the scheduler's workers are busy."""

import threading

import numpy as np
import pytest

from itrex_sweet.errors import DeadlineExceeded
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.scheduler import Scheduler
from tests.tiny_artifacts import random_rows

pytestmark = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
POLICY = Policy((0.4, 0.5), (1.0,) * 3)
LONG = 1e9  # seconds


def a_batch(rows: int, seed: int, tokens: int = 12) -> TokenBatch:
    random = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(random, random.integers(1, tokens, rows).tolist()))


def assert_answered(future, backend, batch, policy=POLICY) -> None:
    answers, expected = future.result(60), Executor(backend, policy).run(batch)
    for name in ("logits", "exit_index", "confidence"):
        np.testing.assert_array_equal(getattr(answers, name), getattr(expected, name))


@pytest.fixture(scope="module")
def backend(backend_of):
    return backend_of("bert static on native")


@pytest.fixture
def idle(backend):
    """Returns a scheduler that knows the time of a run; the calls of its backend wait while `gate` is not set."""
    own = backend.context(2)
    own.gate, own.begun = threading.Event(), threading.Event()
    own.gate.set()

    def waiting(function):
        def call(*arguments):
            own.begun.set()
            own.gate.wait(60)
            return function(*arguments)

        return call

    own.answer, own.embed = waiting(own.answer), waiting(own.embed)
    scheduler = Scheduler(own, POLICY, 4)
    for seed in range(4):
        scheduler.submit(a_batch(4, seed))
        while scheduler.step():
            pass
    return scheduler


@pytest.fixture
def busy(idle):
    """Yields the scheduler while its only worker computes, and the future of what that computes."""
    idle.backend.begun.clear()
    idle.backend.gate.clear()
    future = idle.submit(a_batch(2, 99))
    worker = threading.Thread(target=idle.step)
    worker.start()
    assert idle.backend.begun.wait(60)
    yield idle, future
    idle.backend.gate.set()
    worker.join()


def test_rows_are_answered_while_the_worker_computes(busy, backend):
    scheduler, computing = busy
    batches = [a_batch(rows, seed) for seed, rows in enumerate((1, 3, 2, 6))]
    futures = [scheduler.submit(batch) for batch in batches]
    context = backend.context()
    while scheduler.short_step(context, LONG, 0.0):
        pass
    for future, batch in zip(futures, batches, strict=True):
        assert future.done()
        assert_answered(future, backend, batch)
    assert not computing.done() and scheduler.snapshot().unanswered == 2
    scheduler.backend.gate.set()
    assert_answered(computing, backend, a_batch(2, 99))


def test_rows_that_stay_are_left_to_the_worker(busy, backend):
    scheduler, _ = busy
    never = POLICY.with_threshold(1.0)
    batches, policies = [a_batch(2, seed) for seed in range(2)], [POLICY, never]  # one call has one policy
    futures = [scheduler.submit(batch, Request(policy)) for batch, policy in zip(batches, policies, strict=True)]
    assert scheduler.short_step(backend.context(), LONG, 0.0)
    assert not futures[1].done() and scheduler.snapshot().rows_waiting[1] > 0
    assert not scheduler.short_step(backend.context(), LONG, 0.0)
    scheduler.backend.gate.set()
    while scheduler.step():
        pass
    for future, batch, policy in zip(futures, batches, policies, strict=True):
        assert_answered(future, backend, batch, policy)


def test_rows_are_left_to_a_worker_that_waits(idle, backend):
    future = idle.submit(a_batch(1, 0))
    assert not idle.short_step(backend.context(), LONG, 0.0) and not future.done()


def test_few_rows_are_left_to_the_workers(busy, backend):
    scheduler, _ = busy
    future = scheduler.submit(a_batch(1, 0))
    assert not scheduler.short_step(backend.context(), LONG, LONG) and not future.done()


def test_a_run_takes_the_rows_that_it_has_time_for(busy, backend):
    scheduler, _ = busy
    rows = [scheduler.submit(TokenBatch.from_rows([[1] * 10])) for _ in range(4)]
    seconds = scheduler._costs._short_ratio * scheduler._costs.seconds_to_the_end(25)
    assert not scheduler.short_step(backend.context(), 0.1 * seconds, 0.0)
    assert scheduler.short_step(backend.context(), seconds, 0.0)
    assert [row.done() for row in rows] == [True, True, False, False]


def test_the_estimate_follows_short_runs_and_not_those_of_workers(busy, backend):
    scheduler, _ = busy
    costs = scheduler._costs
    before, ratio = costs.seconds_to_the_end(1000), costs._short_ratio
    scheduler._clock = iter(np.arange(0.0, 1e9, 50.0)).__next__  # each run takes much longer than expected
    for seed in range(20):
        scheduler.submit(a_batch(2, seed))
        scheduler.short_step(backend.context(), LONG, 0.0)
    assert costs._short_ratio > 2 * ratio
    costs._left = costs._rows  # the shares that leave change with every answer
    costs._whole = None
    assert costs.seconds_to_the_end(1000) <= before


def test_expired_requests_are_dropped(busy, backend):
    scheduler, _ = busy
    expired = scheduler.submit(a_batch(1, 0), Request(POLICY, deadline=0.0, drop_expired=True))
    alive = scheduler.submit(a_batch(1, 1))
    assert scheduler.short_step(backend.context(), LONG, 0.0)
    assert isinstance(expired.exception(0), DeadlineExceeded) and alive.done()


def test_only_the_request_that_cannot_be_computed_fails(busy, backend):
    scheduler, _ = busy
    good, bad = scheduler.submit(a_batch(2, 0)), scheduler.submit(TokenBatch.from_rows([[10**6]]))
    scheduler.short_step(backend.context(), LONG, 0.0)
    assert bad.exception(0) is not None
    assert_answered(good, backend, a_batch(2, 0))
