"""What the executor gives back: rows answered, each at one exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Answers:
    """Rows answered, each at one exit.

    Args:
        rows: (rows,) int64, the caller's numbering.
        logits: (rows, labels) float32, of the exit that answered.
        exit_index: (rows,) int64, place of that exit among the exits, from 0.
        confidence: (rows,) float32, by the policy's criterion.
        out_of_time: (rows,) bool, whether a deadline ended the row's way; `None` where there was none.
    """

    rows: np.ndarray
    logits: np.ndarray
    exit_index: np.ndarray
    confidence: np.ndarray
    out_of_time: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: np.ndarray) -> Answers:
        """The answers at these places, or under this mask, in that order."""
        late = None if self.out_of_time is None else self.out_of_time[places]
        return Answers(self.rows[places], self.logits[places], self.exit_index[places], self.confidence[places], late)

    def in_order(self) -> Answers:
        """Sorted by the caller's numbering."""
        return self.select(np.argsort(self.rows, kind="stable"))

    @classmethod
    def none(cls, labels: int) -> Answers:
        """No rows."""
        no_rows = np.zeros(0, dtype=np.int64)
        return cls(no_rows, np.zeros((0, labels), np.float32), no_rows, np.zeros(0, np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """The answers of all parts, in order."""
        if len(parts) == 1:
            return parts[0]
        late = None
        if any(part.out_of_time is not None for part in parts):
            marks = [np.zeros(len(part), bool) if part.out_of_time is None else part.out_of_time for part in parts]
            late = np.concatenate(marks)
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.exit_index for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            late,
        )
