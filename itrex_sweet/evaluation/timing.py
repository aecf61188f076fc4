"""Wall-clock timing of tasks: warm-up, interleaved rounds, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from itrex_sweet.defaults import DEFAULT_REPEATS
from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.runtime.ragged import TokenBatch

Name = TypeVar("Name", bound=Hashable)


def milliseconds_per_row(
    tasks: Mapping[Name, Callable[[], Any]], rows: int, repeats: int = DEFAULT_REPEATS, warm_ups: int = 1
) -> dict[Name, float]:
    """Returns the median wall-clock time of each task in milliseconds per row.

    Tasks are interleaved round by round, so that a change of the machine's speed affects all of them.

    Args:
        tasks: to time, by name.
        rows: processed by one call of a task.
        repeats: measured rounds.
        warm_ups: rounds before them that are not measured.
    """
    if rows < 1 or repeats < 1 or warm_ups < 0:
        raise ConfigError(
            f"rows={rows}, repeats={repeats}, warm_ups={warm_ups}: at least one row and one repeat are needed."
        )
    seconds: dict[Name, list[float]] = {name: [] for name in tasks}
    turns = [(round_, name) for round_ in range(-warm_ups, repeats) for name in tasks]
    for round_, name in progress(turns, "timing", unit="run"):
        start = time.perf_counter()
        tasks[name]()
        elapsed = time.perf_counter() - start
        if round_ >= 0:
            seconds[name].append(elapsed)
    return {name: 1000.0 * statistics.median(values) / rows for name, values in seconds.items()}


def rows_within(seconds: float, seconds_per_row: float, rows: tuple[int, int]) -> int:
    """Returns the number of rows that take about `seconds`, within a minimum and a maximum."""
    return int(np.clip(seconds / max(seconds_per_row, 1e-9), *rows))


def sample_rows(batch: TokenBatch, rows: int, seed: int = 0) -> TokenBatch:
    """Returns at most `rows` rows, drawn at random without replacement."""
    if len(batch) <= rows:
        return batch
    return batch.select(np.sort(np.random.default_rng(seed).choice(len(batch), size=rows, replace=False)))
