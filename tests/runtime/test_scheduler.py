"""Tests of the scheduler: answers equal those of the executor to the bit, for any interleaving of requests."""

import gc
import os
import threading
import weakref
from concurrent.futures import wait
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.errors import DeadlineExceeded, Overloaded, SchedulerClosed
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.dispatch import MostAnswers
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.runner import Runner
from itrex_sweet.runtime.scheduler import Scheduler
from itrex_sweet.runtime.shared_rows import SharedRows
from tests.tiny_artifacts import random_rows

pytestmark = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
CRITERIA = ("max_probability", "entropy", "patience", "patience_and_confidence", "learned")
POLICIES = [Policy((low, 0.5), (1.0,) * 3, name) for low in (0.4, 1.0) for name in CRITERIA]
POLICIES.append(Policy((0.6, 0.6), (1.0,) * 3, max_exit_index=1))


def a_batch(rows: int, seed: int = 0) -> TokenBatch:
    random = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(random, random.integers(1, 12, rows).tolist()))


def assert_equal(answers, expected) -> None:
    for name in ("rows", "logits", "exit_index", "confidence"):
        np.testing.assert_array_equal(getattr(answers, name), getattr(expected, name))


@pytest.fixture(scope="module")
def backend(backend_of):
    return backend_of("bert static on native")


# rows, policy, whether it has a distant deadline, priority, steps before the next one, whether it is cancelled then,
# whether it may be computed by the calling thread
submissions = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(POLICIES),
        st.booleans(),
        st.integers(-2, 2),
        st.integers(0, 3),
        st.sampled_from([False, False, False, True]),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(submitted=submissions, batch_size=st.integers(1, 12), batch_tokens=st.integers(1, 80))
def test_answers_equal_those_of_the_executor(backend, submitted, batch_size, batch_tokens):
    scheduler = Scheduler(backend, POLICIES[0], batch_size, batch_tokens)
    executor, futures = Executor(backend, POLICIES[0]), []
    for place, (rows, policy, has_deadline, priority, steps, is_cancelled, here) in enumerate(submitted):
        request = Request(policy, 1e9 if has_deadline else None, priority)
        future = scheduler.submit(batch := a_batch(rows, place), request, float("inf") if here else 0.0)
        resolved = []
        future.add_done_callback(resolved.append)
        futures.append((future, batch, policy, resolved))
        for _ in range(steps):
            scheduler.step()
        if is_cancelled:
            assert future.cancel() or future.done()
    while scheduler.step():
        pass
    for future, batch, policy, resolved in futures:
        assert resolved == [future]
        if not future.cancelled():
            assert_equal(future.result(0), executor.run(batch, policy))
    snapshot = scheduler.snapshot()
    assert sum(snapshot.rows_waiting) == sum(snapshot.tokens_waiting) == snapshot.unanswered == 0


def test_threads_submit_and_cancel(backend):
    executor = Executor(backend, POLICIES[0])
    batches = [a_batch(rows % 6 + 1, rows) for rows in range(12)]
    expected = {
        (place, index): executor.run(batches[place], POLICIES[index]) for place in range(12) for index in (0, 2)
    }
    wrong = []

    def ask(thread: int) -> None:
        random = np.random.default_rng(thread)
        try:
            for _ in range(60):
                place, index = int(random.integers(12)), int(random.choice([0, 2]))
                future = runner.scheduler.submit(batches[place], Request(POLICIES[index]))
                if random.random() < 0.2:
                    future.cancel()
                else:
                    assert_equal(future.result(60), expected[place, index])
        except BaseException as error:
            wrong.append(error)

    with Runner(Scheduler(backend, POLICIES[0], 8), workers=2) as runner:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert runner.drain(60)
    assert not wrong, wrong[0]
    with pytest.raises(SchedulerClosed):
        runner.scheduler.submit(batches[0])


def test_a_lone_request_is_computed_by_its_caller(backend):
    scheduler = Scheduler(backend, POLICIES[0])
    assert not scheduler.submit(a_batch(2), here_within=1e9).done()  # it is not known how long it takes
    run_all(scheduler)
    expected = Executor(backend, POLICIES[0]).run(a_batch(2))
    seen = []
    scheduler.on_segment = lambda *arguments: seen.append(arguments[1])
    alone = scheduler.submit(a_batch(2), here_within=1e9)
    assert alone.done() and alone.started_at <= alone.finished_at and seen == [2]
    assert_equal(alone.result(0), expected)
    assert not scheduler.submit(a_batch(2), here_within=1e-9).done()  # too long
    assert not scheduler.submit(a_batch(2), here_within=1e9).done()  # not alone
    run_all(scheduler)
    left = scheduler.submit(a_batch(2))
    left.cancel()
    behind = scheduler.submit(a_batch(2), here_within=1e9)
    assert not behind.done()  # rows of the other are still queued
    run_all(scheduler)
    assert_equal(behind.result(0), expected)
    assert not scheduler.submit(a_batch(33), here_within=1e9).done()  # more than a batch
    snapshot = scheduler.snapshot()
    assert sum(snapshot.rows_answered) == 10 and snapshot.unanswered == 33


def test_full_queue_refuses_at_once(backend):
    scheduler = Scheduler(backend, POLICIES[0], max_waiting_rows=4)
    first = scheduler.submit(a_batch(9))  # alone, also beyond the limit
    with pytest.raises(Overloaded):
        scheduler.submit(a_batch(1))
    first.cancel()
    assert wait([first], 0).done  # as of futures of an executor
    scheduler.submit(a_batch(3))
    scheduler.submit(a_batch(1))
    with pytest.raises(Overloaded):
        scheduler.submit(a_batch(1))
    assert scheduler.snapshot().rejected == 2


def test_close_fails_requests_without_an_answer(backend):
    scheduler = Scheduler(backend, POLICIES[0].with_threshold(1.0), batch_size=4)
    futures = [scheduler.submit(a_batch(3, seed)) for seed in range(4)]
    scheduler.step()
    scheduler.close()
    for future in futures:
        with pytest.raises(SchedulerClosed):
            future.result(0)
    assert not scheduler.step()


class Clock:
    """Advances by one second per run of a segment."""

    def __init__(self, backend, monkeypatch):
        self.now, self.runs = 0.0, []
        for name in ("embed", "advance"):
            monkeypatch.setattr(backend, name, self._timed(getattr(type(backend), name).__get__(backend)))

    def _timed(self, function):
        def run(*arguments):
            self.now += 1.0
            self.runs.append(arguments)
            return function(*arguments)

        return run

    def __call__(self) -> float:
        return self.now


NEVER = POLICIES[0].with_threshold(1.0)


def run_all(scheduler) -> None:
    while scheduler.step():
        pass


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    deadlines=st.lists(st.none() | st.floats(0.5, 14.5), min_size=5, max_size=5),
    drop=st.booleans(),
    batch_size=st.integers(1, 8),
)
def test_rows_get_the_last_exit_before_their_deadline(backend, rows, deadlines, drop, batch_size):
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(backend, patch)
        scheduler = Scheduler(backend, NEVER, batch_size, clock=clock)
        executor = Executor(backend, NEVER)
        batches = [a_batch(count, seed) for seed, count in enumerate(rows)]
        requests = [Request(NEVER, deadline, drop_expired=drop) for deadline in deadlines[: len(rows)]]
        futures = [scheduler.submit(*each) for each in zip(batches, requests, strict=True)]
        run_all(scheduler)
    for future, batch, request in zip(futures, batches, requests, strict=True):
        if drop and request.deadline is not None and future.exception(0) is not None:
            assert isinstance(future.exception(), DeadlineExceeded) and future.finished_at >= request.deadline
            continue
        answers = future.result(0)
        outputs = executor.logits_at_every_exit(batch)
        np.testing.assert_array_equal(answers.logits, outputs[np.arange(len(batch)), answers.exit_index])
        if request.deadline is None:
            assert answers.out_of_time is None and (answers.exit_index == 2).all()
        else:
            np.testing.assert_array_equal(answers.out_of_time, answers.exit_index < 2)
            if answers.out_of_time.any() and future.started_at < request.deadline:
                assert future.finished_at < request.deadline + 1.0 + len(batch)  # rows not embedded get the first exit


def test_expired_request_is_dropped_before_it_is_embedded(backend, monkeypatch):
    clock = Clock(backend, monkeypatch)
    scheduler = Scheduler(backend, NEVER, clock=clock)
    dropped = scheduler.submit(a_batch(3), Request(NEVER, 5.0, drop_expired=True))
    kept = scheduler.submit(a_batch(3), Request(NEVER, 5.0))
    clock.now = 6.0
    run_all(scheduler)
    with pytest.raises(DeadlineExceeded):
        dropped.result(0)
    assert kept.result(0).out_of_time.all() and len(clock.runs) == 1
    assert scheduler.snapshot().expired == 1


def test_answered_requests_are_not_kept_until_their_deadline(backend):
    scheduler = Scheduler(backend, POLICIES[0])
    kept = [weakref.ref(scheduler.submit(a_batch(1), Request(POLICIES[0], 1e9))) for _ in range(5)]
    for _ in range(100):
        run_all(scheduler)
        scheduler.submit(a_batch(1), Request(POLICIES[0], 1e9))
    gc.collect()
    assert all(each() is None for each in kept)


@pytest.mark.parametrize("hold", [2.0, 7.0])
def test_started_rows_are_not_held_beyond_the_bound(backend, monkeypatch, hold):
    clock = Clock(backend, monkeypatch)
    scheduler = Scheduler(backend, NEVER, 4, clock=clock)
    scheduler._dispatch.max_hold_seconds = hold
    first = scheduler.submit(a_batch(1))
    for seed in range(60):  # arrivals as fast as they are served
        for number in range(4):
            scheduler.submit(a_batch(1, 4 * seed + number))
        scheduler.step()
        if first.done():
            break
    assert first.done() and first.finished_at - first.started_at <= hold + 5.0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rows_are_held_since_their_oldest_request_was_embedded(order):
    owners = [SimpleNamespace(started_at=started, deadline=None, due=0.0, number=0) for started in (1.0, 7.0)]
    rows = SharedRows([owners[place] for place in order], np.arange(2), np.arange(2), np.ones(2, int), None)
    assert rows.held_since == 1.0


@pytest.mark.parametrize(("now", "chosen"), [(1.9, 0), (2.0, 1)])
def test_overdue_rows_run_before_more_profitable_ones(now, chosen):
    arrivals = SimpleNamespace(rows=32, tokens=32, held_since=None, earliest_deadline=None, front=_Front(5.0))
    survivors = SimpleNamespace(rows=1, tokens=100, held_since=1.0, earliest_deadline=None, front=_Front(1.0))
    costs = SimpleNamespace(seconds=lambda exit_index, tokens: tokens, share_leaving=lambda exit_index: 0.9)
    assert MostAnswers(costs, max_hold_seconds=1.0).choose(arrivals, [survivors], now) == chosen


@dataclass(order=True)
class _Front:
    """The request that is due first in a queue."""

    due: float
    request = Request(NEVER)


def test_low_priority_does_not_starve(backend, monkeypatch):
    clock = Clock(backend, monkeypatch)
    scheduler = Scheduler(backend, NEVER, 2, clock=clock)
    low = scheduler.submit(a_batch(1), Request(NEVER, priority=-1))
    for seed in range(80):
        scheduler.submit(a_batch(2, seed), Request(NEVER, priority=5))
        scheduler.step()
    assert low.done()


def test_higher_priority_and_earlier_deadline_go_first(backend, monkeypatch):
    clock = Clock(backend, monkeypatch)
    scheduler = Scheduler(backend, NEVER, 2, clock=clock)
    requests = [Request(NEVER), Request(NEVER, deadline=8.0), Request(NEVER, priority=9), Request(NEVER, deadline=7.5)]
    futures = [scheduler.submit(a_batch(2, 0), request) for request in requests]
    run_all(scheduler)
    started = [future.started_at for future in futures]
    assert started[3] < started[1] < started[0] and started[2] < started[0]


def test_only_the_request_that_cannot_be_computed_fails(backend):
    scheduler = Scheduler(backend, POLICIES[0])
    good = [scheduler.submit(a_batch(2, seed)) for seed in range(2)]
    bad = scheduler.submit(TokenBatch.from_rows([[10**6]]))
    good.append(scheduler.submit(a_batch(2, 2)))
    run_all(scheduler)
    assert bad.exception(0) is not None
    for seed, future in enumerate(good):
        assert_equal(future.result(0), Executor(backend, POLICIES[0]).run(a_batch(2, seed)))
    assert scheduler.snapshot().unanswered == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_answers_with_threads_of_its_own(backend):
    with Runner(Scheduler(backend, POLICIES[0])) as runner:
        expected = runner.scheduler.submit(a_batch(3)).result(60)
        child = os.fork()
        if child == 0:
            try:
                assert_equal(runner.scheduler.submit(a_batch(3)).result(30), expected)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
