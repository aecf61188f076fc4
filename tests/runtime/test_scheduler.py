"""Tests of the scheduler: answers equal those of the executor to the bit, for any interleaving of requests."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.errors import Overloaded, SchedulerClosed
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.runner import Runner
from itrex_sweet.runtime.scheduler import Scheduler
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


# rows, policy, whether it has a distant deadline, priority, steps before the next one, whether it is cancelled then
submissions = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(POLICIES),
        st.booleans(),
        st.integers(-2, 2),
        st.integers(0, 3),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(submitted=submissions, batch_size=st.integers(1, 12), batch_tokens=st.integers(1, 80))
def test_answers_equal_those_of_the_executor(backend, submitted, batch_size, batch_tokens):
    scheduler = Scheduler(backend, POLICIES[0], batch_size, batch_tokens)
    executor, futures = Executor(backend, POLICIES[0]), []
    for place, (rows, policy, has_deadline, priority, steps, is_cancelled) in enumerate(submitted):
        request = Request(policy, float("inf") if has_deadline else None, priority)
        future = scheduler.submit(batch := a_batch(rows, place), request)
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


def test_full_queue_refuses_at_once(backend):
    scheduler = Scheduler(backend, POLICIES[0], max_waiting_rows=4)
    first = scheduler.submit(a_batch(9))  # alone, also beyond the limit
    with pytest.raises(Overloaded):
        scheduler.submit(a_batch(1))
    first.cancel()
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
