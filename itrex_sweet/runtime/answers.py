"""The result of the executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from itrex_sweet.runtime.request import Request


@dataclass
class Answers:
    """Answers of rows, each by one exit. Not changed after it is created.

    Args:
        rows: (rows,) int64, indices in the caller's order.
        logits: (rows, labels) float32, of the exit that answered.
        exit_index: (rows,) int64, index of that exit, from 0.
        confidence: (rows,) float32, by the policy's criterion.
        out_of_time: (rows,) bool, true if the deadline passed before the row could leave; `None` without a deadline.
        labels, probabilities: as of `Backend.best_labels`, if the backend computed them with the rest; else `None`.
        request: from the scheduler, the request as it was answered: with the policy that decided, and its `quality` if
            load lowered it.
    """

    rows: np.ndarray
    logits: np.ndarray
    exit_index: np.ndarray
    confidence: np.ndarray
    out_of_time: np.ndarray | None = None
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    request: Request | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: np.ndarray) -> Answers:
        """Returns the answers at these indices, in that order, or under a mask."""
        late = None if self.out_of_time is None else self.out_of_time[places]
        return Answers(self.rows[places], self.logits[places], self.exit_index[places], self.confidence[places], late)

    def part(self, start: int, end: int) -> Answers:
        """Returns consecutive answers as those of a call of its own, which share memory."""
        if start == 0 and end == len(self):
            return self
        labels = None if self.labels is None else self.labels[start:end]
        probabilities = None if self.probabilities is None else self.probabilities[start:end]
        late = None if self.out_of_time is None else self.out_of_time[start:end]
        outputs = (self.logits[start:end], self.exit_index[start:end], self.confidence[start:end])
        return Answers(np.arange(end - start), *outputs, late, labels, probabilities)

    def in_order(self) -> Answers:
        """Returns the answers sorted by row index."""
        return self.select(np.argsort(self.rows, kind="stable"))

    @classmethod
    def none(cls, labels: int) -> Answers:
        """Returns answers of no rows."""
        no_rows = np.zeros(0, dtype=np.int64)
        return cls(no_rows, np.zeros((0, labels), np.float32), no_rows, np.zeros(0, np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Concatenates answers."""
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
