"""A small honest timer: warm-up, rounds in which every task takes its turn, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.runtime.ragged import TokenBatch

DEFAULT_ROWS, DEFAULT_REPEATS = 256, 3

Name = TypeVar("Name", bound=Hashable)


def milliseconds_per_row(
    tasks: Mapping[Name, Callable[[], Any]], rows: int, repeats: int = DEFAULT_REPEATS, warm_ups: int = 1
) -> dict[Name, float]:
    """Median wall-clock time of each task, divided by the rows that it answers.

    Tasks take turns, round by round, so that a machine that slows down meanwhile does so for all of them.

    Args:
        tasks: what to time, by name.
        rows: answered by one call of a task.
        repeats: rounds that count.
        warm_ups: rounds before them that do not.

    Returns:
        milliseconds per row, by name.
    """
    if rows < 1 or repeats < 1 or warm_ups < 0:
        raise ConfigError(f"rows={rows}, repeats={repeats}, warm_ups={warm_ups}: time at least one row, once.")
    seconds: dict[Name, list[float]] = {name: [] for name in tasks}
    turns = [(round_, name) for round_ in range(-warm_ups, repeats) for name in tasks]
    for round_, name in progress(turns, "timing", unit="run"):
        start = time.perf_counter()
        tasks[name]()
        elapsed = time.perf_counter() - start
        if round_ >= 0:
            seconds[name].append(elapsed)
    return {name: 1000.0 * statistics.median(values) / rows for name, values in seconds.items()}


def sample_rows(batch: TokenBatch, rows: int, seed: int = 0) -> TokenBatch:
    """At most `rows` rows, drawn without replacement, so that their lengths are those of the whole."""
    if len(batch) <= rows:
        return batch
    return batch.select(np.sort(np.random.default_rng(seed).choice(len(batch), size=rows, replace=False)))
