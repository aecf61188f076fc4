"""Answers of the last minutes, second by second, for the live page."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrex_sweet.serving.histogram import quantiles

SECONDS = 300
QUANTILES = (0.5, 0.95, 0.99)
_BOUNDS = 5e-5 * 1.15 ** np.arange(100)  # seconds: 50 µs to 51 s, in steps of 15 %


class History:
    """Requests, failures, latencies and exits of one model in each of the last seconds.

    Args:
        exits: number of exits.
        seconds: length.
    """

    def __init__(self, exits: int, seconds: int = SECONDS):
        self._seconds = seconds
        self._latest = 0
        self._latencies = np.zeros((seconds, len(_BOUNDS) + 1), dtype=np.int32)
        self._rows = np.zeros((seconds, exits), dtype=np.int64)
        self._failures = np.zeros(seconds, dtype=np.int64)

    def add_latencies(self, finished: np.ndarray, latencies: np.ndarray) -> None:
        """Counts requests that were answered.

        Args:
            finished: (requests,) times in seconds, of a clock that started at 0.
            latencies: (requests,) seconds.
        """
        seconds, kept = self._places(finished)
        np.add.at(self._latencies, (seconds, np.searchsorted(_BOUNDS, latencies[kept])), 1)

    def add_rows(self, finished: np.ndarray, exit_index: np.ndarray) -> None:
        """Counts rows by the exit that answered: (rows,) times and (rows,) int64."""
        seconds, kept = self._places(finished)
        np.add.at(self._rows, (seconds, exit_index[kept]), 1)

    def add_failures(self, finished: np.ndarray) -> None:
        """Counts requests that failed: (requests,) times."""
        seconds, _ = self._places(finished)
        np.add.at(self._failures, seconds, 1)

    def to_dict(self, now: float) -> dict[str, Any]:
        """Returns plain JSON types: one value per second, the last of which is the last complete second.

        Latencies are in milliseconds, `None` in seconds without requests; `last_minute` has their quantiles over the
        last 60 seconds.
        """
        self._advance(int(now))
        order = (int(now) + 1 + np.arange(self._seconds - 1)) % self._seconds  # without the second that has begun
        latencies = self._latencies[order]
        shown = quantiles(_BOUNDS, latencies, QUANTILES) * 1e3
        minute = quantiles(_BOUNDS, latencies[-60:].sum(axis=0), QUANTILES) * 1e3
        return {
            "requests": latencies.sum(axis=1).tolist(),
            "failures": self._failures[order].tolist(),
            "rows": self._rows[order].T.tolist(),
            "latency_ms": [_rounded(shown[:, place]) for place in range(len(QUANTILES))],
            "last_minute": _rounded(minute),
        }

    def _places(self, finished: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the places of the seconds of these times, and a mask of those that are not too old."""
        seconds = finished.astype(np.int64)
        if len(seconds):
            self._advance(int(seconds.max()))
        kept = seconds > self._latest - self._seconds
        return seconds[kept] % self._seconds, kept

    def _advance(self, second: int) -> None:
        """Empties the places of the seconds since the latest one."""
        new = np.arange(max(self._latest + 1, second - self._seconds + 1), second + 1) % self._seconds
        for each in (self._latencies, self._rows, self._failures):
            each[new] = 0
        self._latest = max(self._latest, second)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if value != value else round(value, 3) for value in values.tolist()]
