"""Tests of deadlines: rows get the answer of the last exit reached, and the reason is reported."""

import time

import numpy as np
import pytest

from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import random_rows

NEEDS_NATIVE = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
NEEDS_IPEX = pytest.mark.skipif(unavailable_reason("ipex") is not None, reason="IPEX is not usable here")
BACKENDS = pytest.mark.parametrize(
    "name",
    [
        "bert",
        "cascade",
        "bert static",
        pytest.param("bert static on native", marks=NEEDS_NATIVE),
        pytest.param("bert on ipex", marks=NEEDS_IPEX),
    ],
)
CRITERIA = pytest.mark.parametrize("criterion", ["max_probability", "patience", "learned"])
POLICY = Policy((0.6, 0.6), (1.0,) * 3)


def a_batch(rows: int = 11, seed: int = 0) -> TokenBatch:
    random = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(random, random.integers(1, 12, rows).tolist()))


@pytest.fixture
def clock(monkeypatch):
    """Replaces the clock: it advances by one second per segment, and stands still otherwise."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def counting(backend, clock, monkeypatch) -> list[tuple[int, int]]:
    """Records (exit, rows) of each segment that runs, and advances the clock."""
    ran = []
    advance = type(backend).advance

    def timed(exit_index, hidden):
        clock[0] += 1.0
        ran.append((exit_index, len(hidden)))
        return advance(backend, exit_index, hidden)

    monkeypatch.setattr(backend, "advance", timed)
    return ran


@BACKENDS
@CRITERIA
@pytest.mark.parametrize("size", [1, 4, 32])
def test_distant_deadline_changes_nothing(backend_of, name, criterion, size):
    if name == "cascade" and criterion == "learned":
        pytest.skip("the models of a cascade have no correctness layer")
    executor = Executor(backend_of(name), Policy((0.6, 0.6), (1.0,) * 3, criterion))
    batch = a_batch()
    expected = executor.run(batch)
    answers = executor.run(batch, batch_size=size, deadline=1e9)
    np.testing.assert_array_equal(answers.rows, expected.rows)
    np.testing.assert_array_equal(answers.exit_index, expected.exit_index)
    np.testing.assert_allclose(answers.logits, expected.logits, rtol=1e-4, atol=0.02 if " static" in name else 1e-5)
    assert not answers.out_of_time.any()


@BACKENDS
def test_expired_deadline_gives_the_first_exit(backend_of, name):
    backend, batch = backend_of(name), a_batch()
    answers = Executor(backend, POLICY).run(batch, batch_size=4, deadline=0.0)
    assert answers.rows.tolist() == list(range(len(batch))) and (answers.exit_index == 0).all()
    sure = answers.confidence > 0.6
    np.testing.assert_array_equal(answers.out_of_time, ~sure)
    expected = Executor(backend, POLICY).logits_at_every_exit(batch)[:, 0]
    np.testing.assert_allclose(answers.logits, expected, rtol=1e-4, atol=0.02 if " static" in name else 1e-5)


@BACKENDS
@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5, 4.5])
def test_running_segment_is_finished_and_no_other_started(backend_of, name, seconds, clock, monkeypatch):
    backend, batch = backend_of(name), a_batch()
    never = POLICY.with_threshold(1.0)
    expected = Executor(backend, never).logits_at_every_exit(batch)
    ran = counting(backend, clock, monkeypatch)
    answers = Executor(backend, never).run(batch, batch_size=4, deadline=seconds)
    assert clock[0] - seconds == 0.5 and len(ran) == int(seconds + 0.5)  # 11 rows of 4: three segments an exit
    assert [place for place, _ in ran] == [0, 0, 0, 1, 1][: len(ran)]
    reached = np.bincount(answers.exit_index, minlength=3)
    further = [sum(rows for place, rows in ran if place == exit_index) for exit_index in range(2)]
    assert reached.tolist() == [11 - further[0], further[0] - further[1], further[1]]
    np.testing.assert_array_equal(answers.out_of_time, answers.exit_index < 2)
    rows = np.arange(len(batch))
    close = dict(rtol=1e-4, atol=0.02 if " static" in name else 1e-5)
    np.testing.assert_allclose(answers.logits, expected[rows, answers.exit_index], **close)


def test_max_exit_is_not_reported_as_deadline(backend_of):
    executor = Executor(backend_of("bert"), POLICY)
    policy = Policy((1.0, 1.0), (1.0,) * 3, max_exit_index=1)
    answers = executor.run(a_batch(), policy, deadline=1e9)
    assert (answers.exit_index == 1).all() and not answers.out_of_time.any()


def test_empty_batch(backend_of):
    answers = Executor(backend_of("bert"), POLICY).run(TokenBatch.from_rows([]), deadline=0.0)
    assert len(answers) == 0 and answers.logits.shape == (0, 3)
