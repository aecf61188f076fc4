"""Timing: interleaving, warm-up, medians, milliseconds per row."""

import time

import numpy as np
import pytest

from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation import timing
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import random_rows


def test_tasks_are_interleaved_and_medians_reported(monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    costs = {"a": iter([99.0, 0.3, 0.1, 0.2]), "b": iter([99.0, 1.0, 5.0, 2.0])}

    def task(name):
        def run():
            calls.append(name)
            now[0] += next(costs[name])

        return run

    taken = timing.milliseconds_per_row({name: task(name) for name in costs}, rows=10, repeats=3, warm_ups=1)
    assert calls == ["a", "b"] * 4
    assert taken == pytest.approx({"a": 20.0, "b": 200.0})


def test_measures_wall_clock_time():
    taken = timing.milliseconds_per_row({"nap": lambda: time.sleep(0.02)}, rows=2, repeats=1, warm_ups=0)
    assert 9.0 < taken["nap"] < 200.0


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"rows": 1, "repeats": 0}, {"rows": 1, "warm_ups": -1}])
def test_invalid_arguments_are_rejected(wrong):
    with pytest.raises(ConfigError, match="at least one row and one repeat"):
        timing.milliseconds_per_row({}, **wrong)


def test_samples_are_reproducible_and_without_replacement():
    batch = TokenBatch.from_rows(random_rows(np.random.default_rng(0), list(range(1, 31))))
    drawn = timing.sample_rows(batch, 10)
    assert len(drawn) == 10 and drawn.lengths.tolist() == timing.sample_rows(batch, 10).lengths.tolist()
    assert len(set(drawn.lengths.tolist())) == 10, "without replacement"
    assert timing.sample_rows(batch, 30) is batch
