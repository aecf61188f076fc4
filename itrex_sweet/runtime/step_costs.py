"""The scheduler's model of time: seconds of a run to an exit by its tokens, and the share of rows that leaves there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_MEMORY = 0.98  # weight of earlier runs, per run
_MAX_RATIO = 5.0  # of a measured time to the estimate; more is an interruption of the process
_STEP_SECONDS = 1.5e-4  # time of a step outside the backend
_PRIOR_RUNS = 5.0  # runs that the stored table counts for
_PRIOR_ROWS = 8.0  # rows that the initial share counts for


class StepCosts:
    """Estimates the seconds of a run, linear in its tokens, from earlier runs; first from the calibration's table.

    Args:
        num_exits: of the model.
        stored: `Artifact.costs`; empty if it was not measured.
    """

    def __init__(self, num_exits: int, stored: Mapping[str, Any] | None = None):
        # Weighted sums over runs, per exit: 1, tokens, seconds, tokens², tokens · seconds.
        self._sums = [[0.0] * 5 for _ in range(num_exits)]
        self._lines: list[tuple[float, float]] = [(0.0, 0.0)] * num_exits
        self._rows = [_PRIOR_ROWS] * num_exits
        self._left = [_PRIOR_ROWS / 2] * (num_exits - 1) + [_PRIOR_ROWS]
        if stored and len(stored.get("through", ())) == num_exits:
            self._read(stored)

    def _read(self, stored: Mapping[str, Any]) -> None:
        sizes, lengths = np.asarray(stored["batch_sizes"]), np.asarray(stored["lengths"])
        tokens = np.outer(sizes, lengths).ravel()
        milliseconds = np.asarray(stored["through"]) * sizes[None, :, None]
        segments = np.diff(milliseconds, axis=0, prepend=0.0)
        for exit_index, table in enumerate(segments):
            weight = _PRIOR_RUNS / len(tokens)
            for count, each in zip(tokens.tolist(), (table.ravel() / 1000.0).clip(min=0.0).tolist(), strict=True):
                self._add(exit_index, count, each, weight)
            self._fit(exit_index)

    def observe(self, exit_index: int, rows: int, left: int, tokens: int, seconds: float) -> None:
        """Updates the estimates with a run to an exit: its rows, and those that left there."""
        if (expected := self.seconds(exit_index, tokens)) > 0.0:
            seconds = min(seconds, _MAX_RATIO * expected)  # an interrupted process, not the cost of the run
        self._sums[exit_index] = [_MEMORY * each for each in self._sums[exit_index]]
        self._add(exit_index, tokens, seconds, 1.0)
        self._fit(exit_index)
        self._rows[exit_index] = _MEMORY * self._rows[exit_index] + rows
        self._left[exit_index] = _MEMORY * self._left[exit_index] + left

    def seconds(self, exit_index: int, tokens: float) -> float:
        """Returns the estimated seconds of a run to an exit; 0 if nothing is known."""
        fixed, per_token = self._lines[exit_index]
        return fixed + per_token * tokens

    def share_leaving(self, exit_index: int) -> float:
        """Returns the share of the rows that leaves at an exit, of those that reach it."""
        return self._left[exit_index] / self._rows[exit_index]

    def seconds_to_the_end(self, tokens: float) -> float:
        """Returns the estimated seconds of running rows with these tokens through all exits at once, infinite if not
        known."""
        total = 0.0
        for exit_index in range(len(self._lines)):
            total += self.seconds(exit_index, tokens)
            tokens *= 1.0 - self.share_leaving(exit_index)
        return total or float("inf")

    def observe_to_the_end(self, left: Sequence[int], tokens: int, seconds: float) -> None:
        """Updates the estimates with a run through all exits at once.

        Args:
            left: rows that left at each exit.
        """
        expected = self.seconds_to_the_end(tokens)
        ratio = min(max(seconds / expected, 1.0 / _MAX_RATIO), _MAX_RATIO) if expected > 0.0 else 1.0
        factor = _MEMORY + (1.0 - _MEMORY) * ratio
        rows = sum(left)
        for exit_index, count in enumerate(left):
            fixed, per_token = self._lines[exit_index]
            self._lines[exit_index] = (factor * fixed, factor * per_token)
            sums = self._sums[exit_index]
            sums[2], sums[4] = factor * sums[2], factor * sums[4]
            if rows:
                self._rows[exit_index] = _MEMORY * self._rows[exit_index] + rows
                self._left[exit_index] = _MEMORY * self._left[exit_index] + count
            rows -= count

    def saved_by_regrouping(self, rows: int, batch_size: int) -> float:
        """Returns the seconds that a full batch at each later exit saves against running the survivors of these rows
        alone, less the time of the additional steps."""
        saved, surviving = 0.0, float(rows)
        for exit_index in range(1, len(self._lines)):
            surviving *= 1.0 - self.share_leaving(exit_index - 1)
            saved += self._lines[exit_index][0] * max(1.0 - surviving / batch_size, 0.0) - _STEP_SECONDS
        return saved

    def _add(self, exit_index: int, tokens: float, seconds: float, weight: float) -> None:
        sums = self._sums[exit_index]
        terms = (1.0, tokens, seconds, tokens * tokens, tokens * seconds)
        self._sums[exit_index] = [each + weight * term for each, term in zip(sums, terms, strict=True)]

    def _fit(self, exit_index: int) -> None:
        """Fits a line with non-negative coefficients by least squares."""
        count, x, y, xx, xy = self._sums[exit_index]
        spread = count * xx - x * x
        slope = (count * xy - x * y) / spread if spread > 1e-9 * count * xx else xy / xx
        slope = max(slope, 0.0)
        fixed = (y - slope * x) / count
        self._lines[exit_index] = (fixed, slope) if fixed >= 0.0 else (0.0, xy / xx)
