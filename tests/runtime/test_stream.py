"""Tests of `Executor.stream`: it reads its input late, holds few rows, and gives the answers of `run`."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import random_rows

NEEDS_NATIVE = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
BACKENDS = pytest.mark.parametrize(
    "name", ["bert", "cascade", pytest.param("bert static on native", marks=NEEDS_NATIVE)]
)
NEVER = Policy((1.0, 1.0), (1.0,) * 3)
POLICIES = [
    *(Policy((0.45, 0.5), (1.0,) * 3, name) for name in ("max_probability", "patience", "learned")),
    Policy((1.0, 0.5), (1.0,) * 3),
    Policy((0.5, 0.5), (1.0,) * 3, max_exit_index=1),
]


def a_batch(rows: int, seed: int = 0) -> TokenBatch:
    random = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(random, random.integers(1, 12, rows).tolist()))


class Input:
    """Batches that count how many of them were read."""

    def __init__(self, batches):
        self.batches, self.read = batches, 0

    def __iter__(self):
        for batch in self.batches:
            self.read += 1
            yield batch


@NEEDS_NATIVE
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), max_size=6),
    refill=st.integers(1, 12),
    batch_size=st.integers(1, 12),
    policy=st.sampled_from(POLICIES),
)
def test_answers_equal_those_of_run_to_the_bit(backend_of, sizes, refill, batch_size, policy):
    executor = Executor(backend_of("bert static on native"), NEVER, batch_size)
    batches = [a_batch(size, seed) for seed, size in enumerate(sizes)]
    parts = list(executor.stream(batches, policy, refill))
    assert all(len(part) for part in parts)
    got = Answers.joined(parts).in_order() if parts else Answers.none(3)
    expected = executor.run(TokenBatch.concatenate([a_batch(0), *batches]), policy)
    for field in ("rows", "logits", "exit_index", "confidence"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field))


@BACKENDS
def test_a_batch_is_read_when_no_earlier_row_can_run(backend_of, name):
    executor = Executor(backend_of(name), NEVER.with_threshold(0.45))
    batches = Input([a_batch(6, seed) for seed in range(8)])
    stream = executor.stream(batches, refill=4)
    assert batches.read == 0  # nothing is read before the first answer is asked for
    answered = 0
    for answers in stream:
        answered += len(answers)
        assert 6 * batches.read - answered <= 6 + 2 * 3  # the last batch, and less than `refill` rows at two exits
    assert answered == 48


@BACKENDS
def test_runs_have_no_more_rows_than_the_batch_size(backend_of, name, monkeypatch):
    backend, embedded = backend_of(name), []
    embed = type(backend).embed

    def noted(batch):
        embedded.append(len(batch))
        return embed(backend, batch)

    monkeypatch.setattr(backend, "embed", noted)
    executor = Executor(backend, NEVER, batch_size=8)
    assert sum(map(len, executor.stream([a_batch(30)]))) == 30 and max(embedded) == 8
    embedded.clear()
    assert len(executor.run(a_batch(30), batch_size=3)) == 30 and max(embedded) == 3


@BACKENDS
def test_errors_are_raised_where_they_happen(backend_of, name, monkeypatch):
    backend = backend_of(name)
    executor = Executor(backend, NEVER)

    def batches():
        yield a_batch(3)
        raise LookupError("of the input")

    stream = executor.stream(batches(), refill=1)
    assert next(stream).rows.tolist() == [0, 1, 2]  # answered before the next batch is read
    with pytest.raises(LookupError):
        next(stream)
    assert list(stream) == []

    embed = type(backend).embed

    def refusing(batch):
        if len(batch) == 2:
            raise ValueError("of the backend")
        return embed(backend, batch)

    monkeypatch.setattr(backend, "embed", refusing)
    monkeypatch.setattr(backend, "answer", lambda *_: None)
    stream = executor.stream([a_batch(3), a_batch(2), a_batch(3)], refill=3)
    assert next(stream).rows.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="of the backend"):
        next(stream)
    assert list(stream) == []
    assert len(executor.run(a_batch(3))) == 3


@BACKENDS
def test_closing_reads_no_further_and_frees_the_rows(backend_of, name):
    first = a_batch(6)
    batches = Input([first, *(a_batch(6, seed) for seed in range(1, 4))])
    kept = Kept(first)
    batches.batches[0] = kept.batch
    stream = Executor(backend_of(name), NEVER.with_threshold(0.45)).stream(batches, refill=4)
    next(stream)
    stream.close()
    assert batches.read == 1 and list(stream) == []
    del first, batches, stream
    assert kept.is_gone()  # also without the garbage collector


class Kept:
    """Watches the tokens of a batch."""

    def __init__(self, batch: TokenBatch):
        tokens = batch.input_ids.copy()
        self.batch = TokenBatch(tokens, batch.given_types, batch.given_positions, batch.cu_seqlens)
        self._tokens = weakref.ref(tokens)

    def is_gone(self) -> bool:
        self.batch = None
        return self._tokens() is None


@BACKENDS
def test_two_streams_of_one_executor_are_independent(backend_of, name):
    executor = Executor(backend_of(name), NEVER.with_threshold(0.45))
    batches = [a_batch(5, seed) for seed in range(5)]
    one, other = executor.stream(batches, refill=3), executor.stream(batches[::-1], NEVER, refill=2)
    seen = [[], []]
    for place, answers in (
        (place, answers) for pair in zip(one, other, strict=False) for place, answers in enumerate(pair)
    ):
        seen[place] += answers.rows.tolist()
    for place, stream in enumerate((one, other)):
        seen[place] += [row for answers in stream for row in answers.rows.tolist()]
        assert len(set(seen[place])) == len(seen[place]) >= 20


@BACKENDS
def test_wrong_options_are_refused_before_the_input_is_read(backend_of, name):
    batches = Input([a_batch(3)])
    with pytest.raises(ConfigError, match="batch_size=0"):
        Executor(backend_of(name), NEVER).stream(batches, refill=0)
    assert batches.read == 0
