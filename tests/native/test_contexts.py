"""Concurrent calls of the native backend: equal answers, overlap, shared threads and weights."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from itrex_sweet.artifact import copy_artifact, open_artifact, write_artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.native import library
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import model_and_tensors, random_rows, tiny_artifact

pytestmark = pytest.mark.skipif(all(library.available().values()), reason="the native engine was not built")

FULL_DEPTH, EARLY = Policy.uniform(3, 1.0), Policy((0.5, 0.45), (1.0, 1.5, 0.7))
CALLERS = 8
TIMEOUT = 60.0  # seconds


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return open_artifact(tiny_artifact(tmp_path_factory.mktemp("contexts"), "bert", (1, 2, 4)).directory)


def random_batch(rows: int, seed: int = 0) -> TokenBatch:
    generator = np.random.default_rng(seed)
    return TokenBatch.from_rows(random_rows(generator, generator.integers(1, 33, rows).tolist(), first=5))


def run_together(*functions: Callable[[], None]) -> None:
    """Runs functions in threads that start at the same time; raises the first of their errors."""
    barrier, errors = threading.Barrier(len(functions)), []

    def run(function: Callable[[], None]) -> None:
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# 1 thread: calls take turns; 2: they wait and share; 5: more shares than processors.
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("min_macs_per_thread", [0, -1])
def test_concurrent_calls_equal_those_of_one_thread(artifact, threads, min_macs_per_thread):
    backend = NativeBackend(artifact, threads=threads, min_macs_per_thread=min_macs_per_thread)
    batches = [random_batch(rows, rows) for rows in (1, 2, 7, 60)]
    expected = [NativeBackend(artifact, threads=1).answer(batch, EARLY) for batch in batches]
    logits = Executor(backend, EARLY).logits_at_every_exit(batches[-1])

    def work(caller: int) -> None:
        for round_ in range(6):
            place = (caller + round_) % len(batches)
            answers = backend.answer(batches[place], EARLY)
            np.testing.assert_array_equal(answers.logits, expected[place].logits)
            np.testing.assert_array_equal(answers.exit_index, expected[place].exit_index)
            got = Executor(backend, EARLY).logits_at_every_exit(batches[-1], batch_size=1 + 9 * caller)
            np.testing.assert_array_equal(got, logits)

    run_together(*(lambda caller=caller: work(caller) for caller in range(CALLERS)))
    counts = backend.thread_counts
    assert (counts.calls, counts.threads) == (0, 0)
    assert counts.most_calls <= counts.most_threads <= threads


@pytest.mark.parametrize("threads", [1, 2])
def test_short_calls_end_while_a_long_one_runs(artifact, threads):
    """With one thread the calls take turns; with two, each gets one."""
    backend = NativeBackend(artifact, threads=threads)
    short, rows = random_batch(2), 20_000
    while True:  # long enough on this machine
        long, start = random_batch(rows), time.monotonic()
        expected = backend.answer(long, FULL_DEPTH).logits
        if time.monotonic() - start > 1.0:
            break
        rows *= 2
    ended = threading.Event()

    def run_long() -> None:
        np.testing.assert_array_equal(backend.answer(long, FULL_DEPTH).logits, expected)
        ended.set()

    def run_short() -> None:
        until = time.monotonic() + TIMEOUT
        while backend.thread_counts.calls == 0 and time.monotonic() < until:
            time.sleep(0.001)
        for _ in range(3):
            backend.answer(short, FULL_DEPTH)
            assert not ended.is_set()

    run_together(run_long, run_short)
    assert ended.is_set()
    assert backend.thread_counts.most_calls == threads


def test_long_calls_run_at_the_same_time_on_one_thread_each(artifact):
    backend = NativeBackend(artifact, threads=2, min_macs_per_thread=0)
    batch = random_batch(3000)
    until = time.monotonic() + TIMEOUT
    while backend.thread_counts.most_calls < 2 and time.monotonic() < until:
        run_together(*[lambda: backend.answer(batch, FULL_DEPTH)] * 3)
    counts = backend.thread_counts
    assert (counts.most_calls, counts.most_threads) == (2, 2)


def test_contexts_that_many_calls_left_are_freed(artifact):
    backend = NativeBackend(artifact, threads=2)
    batch = random_batch(300)
    run_together(*[lambda: backend.answer(batch, FULL_DEPTH)] * 12)
    unused = backend._contexts._unused
    assert 1 <= len(unused) <= 4
    size = backend.workspace_bytes
    for _ in range(20):
        backend.answer(batch, FULL_DEPTH)
    assert len(unused) == len(set(map(id, unused))) <= 4, "calls that come one by one need no further context"
    assert backend.workspace_bytes <= size + size // len(unused)


# ---------------------------------------------------------------------------------------------------- own contexts


def test_own_context_shares_weights_and_states_but_no_threads(artifact):
    backend = NativeBackend(artifact, threads=2, min_macs_per_thread=0)
    context, batch = backend.context(threads=1), random_batch(9)
    assert (context.threads, backend.threads) == (1, 2)
    assert context.weight_bytes == backend.weight_bytes and context._model is backend._model
    mine, its = backend.embed(batch), context.embed(batch)
    expected = backend.probe(1, backend.advance(0, mine))
    np.testing.assert_array_equal(context.probe(1, backend.advance(0, its)), expected)
    merged = backend.merge([mine, its])
    np.testing.assert_array_equal(context.probe(1, context.advance(0, merged)), np.concatenate([expected] * 2))
    assert context.thread_counts.most_threads == 1 and backend.thread_counts.most_threads == 2
    assert context.answer(batch, EARLY).exit_index.tolist() == backend.answer(batch, EARLY).exit_index.tolist()


def test_own_context_outlives_its_backend(artifact):
    context, batch = NativeBackend(artifact, threads=2).context(), random_batch(3)
    expected = NativeBackend(artifact, threads=1).answer(batch, EARLY).logits
    gc.collect()
    np.testing.assert_array_equal(context.answer(batch, EARLY).logits, expected)


def test_own_context_with_invalid_threads_raises(artifact):
    with pytest.raises(ConfigError, match="threads=0"):
        NativeBackend(artifact).context(threads=0)


def test_backends_without_contexts_return_themselves(artifact):
    backend = TorchBackend(artifact)
    assert backend.context(threads=1) is backend


# ---------------------------------------------------------------------------------------------------- shared weights


def test_backends_of_the_same_weights_share_one_copy(tmp_path):
    # No backend of another test has these weights.
    _, config, tensors = model_and_tensors("bert", (1, 2, 4), seed=5)
    write_artifact(tmp_path / "own", config=config, tensors=tensors)
    artifact = open_artifact(tmp_path / "own")
    calibrated = copy_artifact(artifact, tmp_path / "calibrated", policy=EARLY)
    first, again, other_policy = map(NativeBackend, (artifact, open_artifact(artifact.directory), calibrated))
    assert first._model is again._model is other_policy._model
    assert first._threads is again._threads, "backends without a number of threads share the processors"
    batch = random_batch(5)
    expected = first.answer(batch, EARLY).logits
    packed = weakref.ref(first._model)
    del first, other_policy
    np.testing.assert_array_equal(again.answer(batch, EARLY).logits, expected)
    del again
    gc.collect()
    assert packed() is None, "the packed weights are freed with the last backend"


def test_backends_of_other_weights_or_settings_have_their_own(artifact, tmp_path):
    backend = NativeBackend(artifact, threads=1)
    same = NativeBackend(artifact, threads=1)
    assert same._model is backend._model and same._threads is not backend._threads
    _, config, tensors = model_and_tensors("bert", (1, 2, 4), seed=1)
    write_artifact(tmp_path / "other", config=config, tensors=tensors)
    assert NativeBackend(open_artifact(tmp_path / "other"))._model is not backend._model
    assert NativeBackend(artifact, dtype="bfloat16")._model is not backend._model
    isas = [isa for isa, reason in library.available().items() if reason is None and isa != backend.isa]
    for isa in isas[:1]:
        assert NativeBackend(artifact, isa=isa)._model is not backend._model
    unverified = open_artifact(artifact.directory, verify=False)
    assert NativeBackend(unverified)._model is not backend._model
