"""The scheduler's model of time: seconds of a run by its tokens, of a step outside the backend, and the share of rows
that leaves at each exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_MEMORY = 0.98  # weight of earlier runs, per run
_MAX_RATIO = 5.0  # of a measured time to the estimate; more is an interruption of the process
_FIRST_STEP_SECONDS = 1.5e-4  # of a step outside the backend, before any was measured
_PRIOR_RUNS = 5.0  # runs that the stored table counts for
_PRIOR_ROWS = 8.0  # rows that the initial share counts for
_MAX_FIXED_SHARE = 0.03  # of a run's time, that does not depend on its tokens; a shorter run would waste more


class Line:
    """Seconds as a linear function of tokens, fitted to runs by least squares; later runs count more."""

    def __init__(self) -> None:
        self.fixed = self.per_token = 0.0
        # Weighted sums over runs: 1, tokens, seconds, tokens², tokens · seconds.
        self._sums = [0.0] * 5

    def __call__(self, tokens: float) -> float:
        """Returns the estimated seconds of a run; 0 if nothing is known."""
        return self.fixed + self.per_token * tokens

    def add(self, tokens: float, seconds: float, weight: float = 1.0) -> None:
        """Fits a further run without forgetting earlier ones."""
        terms = (1.0, tokens, seconds, tokens * tokens, tokens * seconds)
        self._sums = [each + weight * term for each, term in zip(self._sums, terms, strict=True)]
        self._fit()

    def observe(self, tokens: float, seconds: float) -> None:
        """Fits a run, which counts more than earlier ones."""
        if (expected := self(tokens)) > 0.0:
            seconds = min(seconds, _MAX_RATIO * expected)  # an interrupted process, not the cost of the run
        self._sums = [_MEMORY * each for each in self._sums]
        self.add(tokens, seconds)

    def scale(self, factor: float) -> None:
        """Multiplies the estimate."""
        self.fixed *= factor
        self.per_token *= factor
        self._sums[2] *= factor
        self._sums[4] *= factor

    def tokens_within(self, seconds: float, more: float = 0.0) -> float:
        """Returns the tokens that a run may have: of this duration, or longer if less than 97 % of its time would
        depend on its tokens.

        Args:
            more: fixed seconds of a run beside those of the line.
        """
        if self.per_token <= 0.0:
            return float("inf")
        fixed = self.fixed + more
        return max(seconds - fixed, fixed * (1.0 / _MAX_FIXED_SHARE - 1.0)) / self.per_token

    def _fit(self) -> None:
        """Fits non-negative coefficients."""
        count, x, y, xx, xy = self._sums
        spread = count * xx - x * x
        slope = (count * xy - x * y) / spread if spread > 1e-9 * count * xx else xy / xx
        slope = max(slope, 0.0)
        fixed = (y - slope * x) / count
        self.fixed, self.per_token = (fixed, slope) if fixed >= 0.0 else (0.0, xy / xx)


class StepCosts:
    """Estimates the seconds of a run, linear in its tokens, from earlier runs; first from the calibration's table.

    Args:
        num_exits: of the model.
        stored: `Artifact.costs`; empty if it was not measured.
        threads: of a run; a short run has one.

    Attributes:
        step_seconds: of a step outside the backend, a moving average. Threads that wait for the interpreter's lock
            are part of it.
    """

    def __init__(self, num_exits: int, stored: Mapping[str, Any] | None = None, threads: int = 1):
        self.step_seconds = _FIRST_STEP_SECONDS
        self._short_ratio = float(threads)  # of the time of a short run to the estimate for a run
        self._lines = [Line() for _ in range(num_exits)]
        self._whole: Line | None = None  # result of `_to_the_end`
        self._rows = [_PRIOR_ROWS] * num_exits
        self._left = [_PRIOR_ROWS / 2] * (num_exits - 1) + [_PRIOR_ROWS]
        self._has_table = bool(stored) and len(stored.get("through", ())) == num_exits
        if self._has_table:
            self._read(stored)
        # Regrouping saves what the backend spends per run. Later estimates include waiting for the interpreter's lock,
        # which every further run adds.
        self._saved_per_run = [line.fixed for line in self._lines]

    def _read(self, stored: Mapping[str, Any]) -> None:
        sizes, lengths = np.asarray(stored["batch_sizes"]), np.asarray(stored["lengths"])
        tokens = np.outer(sizes, lengths).ravel()
        milliseconds = np.asarray(stored["through"]) * sizes[None, :, None]
        segments = np.diff(milliseconds, axis=0, prepend=0.0)
        weight = _PRIOR_RUNS / len(tokens)
        for line, table in zip(self._lines, segments, strict=True):
            for count, each in zip(tokens.tolist(), (table.ravel() / 1000.0).clip(min=0.0).tolist(), strict=True):
                line.add(count, each, weight)

    def observe(self, exit_index: int, rows: int, left: int, tokens: int, seconds: float) -> None:
        """Updates the estimates with a run to an exit: its rows, and those that left there."""
        line, self._whole = self._lines[exit_index], None
        if self._has_table:  # few runs of similar size would not tell fixed time from time per token
            line.scale(_factor(seconds, line(tokens)))
        else:
            line.observe(tokens, seconds)
        self._rows[exit_index] = _MEMORY * self._rows[exit_index] + rows
        self._left[exit_index] = _MEMORY * self._left[exit_index] + left

    def observe_step(self, seconds: float) -> None:
        """Updates `step_seconds` with a step."""
        seconds = min(seconds, _MAX_RATIO * self.step_seconds)
        self.step_seconds += (1.0 - _MEMORY) * (seconds - self.step_seconds)

    def seconds(self, exit_index: int, tokens: float) -> float:
        """Returns the estimated seconds of a run to an exit; 0 if nothing is known."""
        return self._lines[exit_index](tokens)

    def share_leaving(self, exit_index: int) -> float:
        """Returns the share of the rows that leaves at an exit, of those that reach it."""
        return self._left[exit_index] / self._rows[exit_index]

    def seconds_to_the_end(self, tokens: float) -> float:
        """Returns the estimated seconds of running rows with these tokens through all exits at once, infinite if not
        known."""
        return self._to_the_end()(tokens) or float("inf")

    def _to_the_end(self) -> Line:
        """Returns the sum of the segments, of which each has the rows that earlier ones leave."""
        if self._whole is not None:
            return self._whole
        total, share = Line(), 1.0
        for exit_index, line in enumerate(self._lines):
            total.fixed += line.fixed
            total.per_token += share * line.per_token
            share *= 1.0 - self._left[exit_index] / self._rows[exit_index]
        self._whole = total
        return total

    def observe_to_the_end(self, left: Sequence[int], tokens: int, seconds: float) -> None:
        """Updates the estimates with a run through all exits at once.

        Args:
            left: rows that left at each exit.
        """
        factor = _factor(seconds, self._to_the_end()(tokens))
        self._whole = None
        rows = sum(left)
        for exit_index, count in enumerate(left):
            self._lines[exit_index].scale(factor)
            if rows:
                self._rows[exit_index] = _MEMORY * self._rows[exit_index] + rows
                self._left[exit_index] = _MEMORY * self._left[exit_index] + count
            rows -= count

    def tokens_to_the_end(self, seconds: float) -> float:
        """Returns the tokens of a run through all exits at once that takes this time; more if that run would be
        wasteful, see `Line.tokens_within`; 0 if not known."""
        line = self._to_the_end()
        return line.tokens_within(seconds, self.step_seconds) if line(1.0) > 0.0 else 0.0

    def tokens_of_a_short_run(self, seconds: float) -> float:
        """Returns the tokens of a run through all exits at once that takes at most this time on one thread; 0 if not
        known."""
        line = self._to_the_end()
        return max(seconds / self._short_ratio - line.fixed, 0.0) / line.per_token if line.per_token > 0.0 else 0.0

    def observe_short_run(self, tokens: int, seconds: float) -> None:
        """Updates the estimate of the time of short runs with one of them."""
        if (expected := self._to_the_end()(tokens)) > 0.0:
            ratio = min(seconds / expected, _MAX_RATIO * self._short_ratio)
            self._short_ratio += (1.0 - _MEMORY) * (ratio - self._short_ratio)

    def tokens_of_a_run(self, exit_index: int, seconds: float) -> float:
        """Returns the same of a run to one exit; infinite if not known."""
        return self._lines[exit_index].tokens_within(seconds, self.step_seconds)

    def saved_by_regrouping(self, rows: int, batch_size: int) -> float:
        """Returns the seconds that a full batch at each later exit saves against running the survivors of these rows
        alone, less the time of the additional steps."""
        saved, surviving = 0.0, float(rows)
        for exit_index in range(1, len(self._lines)):
            surviving *= 1.0 - self.share_leaving(exit_index - 1)
            saved += self._saved_per_run[exit_index] * max(1.0 - surviving / batch_size, 0.0) - self.step_seconds
        return saved


def _factor(seconds: float, expected: float) -> float:
    """Returns by what an estimate changes when a run has taken this time; interruptions of the process count little."""
    ratio = min(max(seconds / expected, 1.0 / _MAX_RATIO), _MAX_RATIO) if expected > 0.0 else 1.0
    return _MEMORY + (1.0 - _MEMORY) * ratio
