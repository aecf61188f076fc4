"""Drift of the last answers of a server from the calibration rows, in bounded memory."""

from __future__ import annotations

from collections import deque

import numpy as np

from itrex_sweet.drift import MIN_ROWS, AnswerCounts, Drift, Reference

WINDOW = 5000  # answers
_BLOCKS = 20  # parts of the window, which are dropped one at a time
_HISTORY = 240  # comparisons


class LiveDrift:
    """Compares the last answers with the calibration rows.

    Answers are counted in blocks of a twentieth of the window; a block is dropped when the window would become longer.
    Only answers under the stored policy belong in the comparison.

    Args:
        reference: answers to the calibration rows.
        window: maximum number of answers compared.

    Attributes:
        history: pairs of a time, as given to `add`, and the comparison at that time, one per block.
    """

    def __init__(self, reference: Reference, window: int = WINDOW):
        self.reference = reference
        self.history: deque[tuple[float, Drift]] = deque(maxlen=_HISTORY)
        self._window = window
        self._block_rows = max(window // _BLOCKS, 1)
        self._blocks: deque[AnswerCounts] = deque()
        nothing = np.zeros(0, dtype=np.int64)
        self._none = reference.count(nothing, nothing, np.zeros(0))
        self._latest = self._total = self._none

    def add(self, labels: np.ndarray, exit_index: np.ndarray, scores: np.ndarray, time: float) -> None:
        """Counts answers, with the arguments of `Reference.count`; answers that are not finite are left out.

        Args:
            time: in seconds, of any clock.
        """
        answered = (labels >= 0) & np.isfinite(scores)
        for start in range(0, len(labels), self._block_rows):
            part = slice(start, start + self._block_rows)
            chosen = answered[part]
            counts = self.reference.count(labels[part][chosen], exit_index[part][chosen], scores[part][chosen])
            self._latest, self._total = self._latest + counts, self._total + counts
            if self._latest.rows >= self._block_rows:
                self._close_block(time)

    def report(self) -> Drift | None:
        """Compares the answers of the window with the calibration rows; returns `None` if they are too few."""
        return self.reference.compare(self._total) if self.rows >= MIN_ROWS else None

    @property
    def rows(self) -> int:
        """Number of answers in the window."""
        return self._total.rows

    @property
    def exit_shares(self) -> tuple[list[float], list[float]]:
        """Shares of the exits, (exits,): of the calibration rows and of the answers in the window."""
        shares = [counts.exits / max(counts.rows, 1) for counts in (self.reference.counts, self._total)]
        return shares[0].tolist(), shares[1].tolist()

    def _close_block(self, time: float) -> None:
        self._blocks.append(self._latest)
        self._latest = self._none
        while self._total.rows > self._window and self._blocks:
            self._total = self._total - self._blocks.popleft()
        if (found := self.report()) is not None:
            self.history.append((time, found))
