"""Tests of the scheduler when something fails: rows, callbacks, threads, and the process that forks."""

import os
import signal
import weakref

import numpy as np
import pytest

from itrex_sweet.errors import DeadlineExceeded, Overloaded, SchedulerClosed
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.degradation import Degradation, Level
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.runner import Runner
from itrex_sweet.runtime.scheduler import Scheduler
from tests.tiny_artifacts import random_rows

pytestmark = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
NEVER = Policy((1.0, 1.0), (1.0,) * 3)
PATIENT = Policy((0.9, 0.9), (1.0,) * 3, "patience")  # leaves after three exits with the same label


def a_batch(rows: int, seed: int = 0, longest: int = 12) -> TokenBatch:
    random = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(random, random.integers(1, longest, rows).tolist()))


def assert_equal(answers, expected) -> None:
    for name in ("logits", "exit_index", "confidence"):
        np.testing.assert_array_equal(getattr(answers, name), getattr(expected, name))


def run_all(scheduler: Scheduler) -> None:
    while scheduler.step():
        pass


@pytest.fixture(scope="module")
def backend(backend_of):
    return backend_of("bert static on native")


class Refused(RuntimeError):
    """Raised by a backend that cannot compute a row."""


def test_row_that_fails_at_a_deeper_exit_fails_alone(backend, monkeypatch):
    advance = type(backend).advance

    def refusing(exit_index, hidden):
        if exit_index == 1 and (hidden.lengths == 20).any():
            raise Refused
        return advance(backend, exit_index, hidden)

    batches = [a_batch(2, seed) for seed in range(3)]
    expected = [Executor(backend, NEVER).run(batch) for batch in batches]
    monkeypatch.setattr(backend, "advance", refusing)
    scheduler = Scheduler(backend, NEVER)
    good = [scheduler.submit(batch) for batch in batches[:2]]
    bad = scheduler.submit(TokenBatch.from_rows([[7] * 20]))
    good.append(scheduler.submit(batches[2]))
    run_all(scheduler)
    assert isinstance(bad.exception(0), Refused)
    for future, answers in zip(good, expected, strict=True):
        assert_equal(future.result(0), answers)
    assert scheduler.snapshot().unanswered == 0


def test_rows_that_run_again_have_the_same_state_of_their_criterion(backend, monkeypatch):
    confidence = type(backend).confidence

    def refusing(policy, exit_index, *arguments):
        if policy.criterion == "max_probability" and exit_index == 1:
            raise Refused
        return confidence(backend, policy, exit_index, *arguments)

    batch = a_batch(9, 3)
    expected = Executor(backend, PATIENT).run(batch)
    monkeypatch.setattr(backend, "confidence", refusing)
    scheduler = Scheduler(backend, NEVER)
    patient = scheduler.submit(batch, Request(PATIENT))  # its policy is decided before the one that fails
    bad = scheduler.submit(a_batch(2), Request(NEVER.with_threshold(0.99)))
    run_all(scheduler)
    assert isinstance(bad.exception(0), Refused)
    assert_equal(patient.result(0), expected)


@pytest.mark.parametrize("here", [0.0, float("inf")])
def test_error_of_the_observer_fails_no_request(backend, here, caplog):
    def failing(*_):
        raise ValueError("of the observer")

    scheduler = Scheduler(backend, NEVER)
    scheduler.submit(a_batch(1))
    run_all(scheduler)  # the time of rows is known from here on
    scheduler.on_segment = failing
    if here:
        assert scheduler.submit(a_batch(3), here_within=here).result(0) is not None
    else:
        with Runner(scheduler) as runner:
            assert [runner.scheduler.submit(a_batch(3)).result(30) is not None for _ in range(3)] == [True] * 3
            assert not scheduler.is_closed
    assert "of the observer" in caplog.text


@pytest.mark.parametrize("here", [0.0, float("inf")])
def test_interrupted_computation_leaves_no_request_without_an_answer(backend, monkeypatch, here):
    scheduler = Scheduler(backend, NEVER)
    scheduler.submit(a_batch(1))
    run_all(scheduler)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backend, "embed", interrupted)
    monkeypatch.setattr(backend, "answer", interrupted)
    if here:
        with pytest.raises(KeyboardInterrupt):
            scheduler.submit(a_batch(3), here_within=here)
    else:
        futures = [scheduler.submit(a_batch(3), Request(NEVER.with_threshold(low))) for low in (0.5, 0.6)]
        with pytest.raises(KeyboardInterrupt):
            scheduler.step()
        assert all(isinstance(future.exception(0), SchedulerClosed) for future in futures)
    assert scheduler.snapshot().unanswered == 0 and scheduler.wait_until_answered(0)


def test_interrupt_in_a_callback_keeps_no_other_answer(backend):
    def interrupted(_):
        raise KeyboardInterrupt

    scheduler = Scheduler(backend, NEVER)
    futures = [scheduler.submit(a_batch(2, seed)) for seed in range(3)]
    futures[0].add_done_callback(interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all(scheduler)
    assert all(future.done() for future in futures)


def test_runs_are_traced_and_observed_before_the_answer_is_there(backend):
    scheduler, seen, trace = Scheduler(backend, NEVER), [], []
    scheduler.on_segment = lambda *run: seen.append(("observed", run[0]))
    future = scheduler.submit(a_batch(3), Request(NEVER, deadline=1e9, trace=trace))  # with a deadline, exit by exit
    future.add_done_callback(lambda _: seen.append(("answered", len(trace))))
    run_all(scheduler)
    assert seen == [("observed", 0), ("observed", 1), ("observed", 2), ("answered", 3)]
    assert [(each[0], *each[3:]) for each in trace] == [(exit_index, 3, 3) for exit_index in range(3)]


def test_close_frees_rows_that_wait(backend):
    scheduler = Scheduler(backend, NEVER, batch_size=2)
    batch = a_batch(6)
    kept = weakref.ref(scheduler.submit(batch))
    scheduler.step()
    scheduler.close()
    assert kept() is None  # also without the garbage collector
    assert scheduler.snapshot().rows_waiting == (0, 0, 0) and not scheduler.wait(0)


def test_deadline_of_this_moment_has_passed(backend):
    now = [5.0]
    scheduler = Scheduler(backend, NEVER, clock=lambda: now[0])
    dropped = scheduler.submit(a_batch(2), Request(NEVER, 5.0, drop_expired=True))
    first_exit = scheduler.submit(a_batch(2), Request(NEVER, 5.0))
    started = scheduler.submit(a_batch(2), Request(NEVER, 6.0, drop_expired=True))
    run = scheduler.step()
    now[0] = 6.0
    run_all(scheduler)
    assert run and isinstance(dropped.exception(0), DeadlineExceeded)
    assert (first_exit.result(0).exit_index == 0).all() and first_exit.result(0).out_of_time.all()
    assert started.result(0).out_of_time.all() and scheduler.snapshot().expired == 1


def test_request_without_rows_has_the_times_and_refusals_of_others(backend):
    scheduler = Scheduler(backend, NEVER, max_waiting_rows=1)
    scheduler.submit(a_batch(4))
    nothing = scheduler.submit(TokenBatch.from_rows([]), Request(NEVER, 0.0, drop_expired=True))
    assert len(nothing.result(0)) == 0 and nothing.result(0).request.policy == NEVER
    assert nothing.submitted_at == nothing.started_at == nothing.finished_at is not None
    assert scheduler.snapshot().unanswered == 4
    scheduler.close()
    with pytest.raises(SchedulerClosed):
        scheduler.submit(TokenBatch.from_rows([]))


def test_burst_between_two_runs_lowers_quality_before_it_is_refused(backend):
    now = [0.0]

    def clock() -> float:
        now[0] += 0.01
        return now[0]

    policies = [NEVER, NEVER.with_threshold(0.5)]
    degradation = Degradation([Level(policies[0], None, 1.0), Level(policies[1], 0.5, 0.5)], 0.2)
    scheduler = Scheduler(backend, NEVER, 2, max_waiting_rows=20, degradation=degradation, clock=clock)
    scheduler.submit(a_batch(1))
    run_all(scheduler)
    futures = []
    with pytest.raises(Overloaded):
        for seed in range(10_000):  # none of them starts meanwhile
            futures.append(scheduler.submit(a_batch(1, seed)))
    assert 20 <= len(futures) <= 100
    run_all(scheduler)
    assert futures[0].result(0).request.quality == 0.5


def exit_status_of_child(function) -> int:
    """Returns the exit status of a forked child that calls a function; it is ended after 60 seconds."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@NEEDS_FORK
def test_closed_scheduler_is_closed_in_a_forked_child(backend):
    runner = Runner(Scheduler(backend, NEVER)).start()
    runner.close()

    def refuses():
        with pytest.raises(SchedulerClosed):
            runner.scheduler.submit(a_batch(1))

    assert exit_status_of_child(refuses) == 0


@NEEDS_FORK
def test_stream_continues_in_a_forked_child(backend):
    executor = Executor(backend, NEVER.with_threshold(0.45))
    batches = [a_batch(5, seed) for seed in range(6)]
    stream = executor.stream(iter(batches), refill=4)
    seen = next(stream).rows.tolist()

    def answers_the_rest():
        rows = [row for answers in stream for row in answers.rows.tolist()]
        assert sorted(seen + rows) == list(range(30))

    assert exit_status_of_child(answers_the_rest) == 0
    answers_the_rest()
