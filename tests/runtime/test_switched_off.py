"""Tests of policies that skip exits: one at which no row can leave is not probed; `max_exit_index` ends early."""

import numpy as np
import pytest

from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import unavailable_reason
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import random_rows

NEEDS_NATIVE = pytest.mark.skipif(unavailable_reason("native") is not None, reason="the native engine was not built")
BACKENDS = pytest.mark.parametrize(
    "name", ["bert", "cascade", pytest.param("bert static on native", marks=NEEDS_NATIVE)]
)


def a_batch(rows: int = 9) -> TokenBatch:
    random = np.random.default_rng(3)
    return TokenBatch.from_rows(random_rows(random, random.integers(1, 12, rows).tolist()))


@pytest.mark.parametrize(
    ("policy", "probed"),
    [
        (Policy((1.0, 1.0), (1.0,) * 3), [2]),
        (Policy((1.0, 0.99), (1.0,) * 3, "entropy"), [1, 2]),
        (Policy((1.0, 1.0), (1.0,) * 3, "patience"), [0, 1, 2]),
        (Policy((1.0, 1.0), (1.0,) * 3, max_exit_index=1), [1]),
    ],
)
@pytest.mark.parametrize("size", [4, 32])
def test_probed_exits(backend_of, monkeypatch, policy, probed, size):
    backend, seen = backend_of("bert"), []
    probe = type(backend).probe
    monkeypatch.setattr(backend, "probe", lambda place, hidden: seen.append(place) or probe(backend, place, hidden))
    Executor(backend, policy).run(a_batch(), batch_size=size)
    assert sorted(set(seen)) == probed


@BACKENDS
@pytest.mark.parametrize("size", [2, 32])
@pytest.mark.parametrize("max_exit_index", [0, 1, 2])
@pytest.mark.parametrize("threshold", [0.55, 1.0])
def test_max_exit_index_does_not_affect_earlier_exits(backend_of, name, size, max_exit_index, threshold):
    executor, batch = Executor(backend_of(name), None), a_batch()
    whole = executor.run(batch, Policy((threshold,) * 2, (1.0,) * 3), size)
    short = executor.run(batch, Policy((threshold,) * 2, (1.0,) * 3, max_exit_index=max_exit_index), size)
    np.testing.assert_array_equal(short.exit_index, np.minimum(whole.exit_index, max_exit_index))
    logits = executor.logits_at_every_exit(batch)[np.arange(len(batch)), short.exit_index]
    np.testing.assert_allclose(short.logits, logits, rtol=1e-4, atol=1e-5)


@NEEDS_NATIVE
@pytest.mark.parametrize("criterion", ["max_probability", "learned"])
@pytest.mark.parametrize("thresholds", [(1.0, 0.5), (0.5, 1.0), (0.4, 0.45), (1.0, 1.0)])
@pytest.mark.parametrize("max_exit_index", [None, 0, 1])
def test_native_loop_equals_the_executor(backend_of, monkeypatch, criterion, thresholds, max_exit_index):
    backend, batch = backend_of("bert static on native"), a_batch(30)
    policy = Policy(thresholds, (0.7, 1.3, 2.0), criterion, max_exit_index=max_exit_index)
    inside = Executor(backend, policy).run(batch)
    monkeypatch.setattr(backend, "answer", lambda *_: None)
    outside = Executor(backend, policy).run(batch)
    for name in ("rows", "exit_index", "logits", "confidence"):
        np.testing.assert_array_equal(getattr(inside, name), getattr(outside, name))
