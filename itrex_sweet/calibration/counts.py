"""Counts of the rows that a policy loses and wins against the model that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LossCounts:
    """Rows whose answers differ in correctness between a policy and the model that it is compared with.

    Args:
        lost: rows that the compared model answers correctly and the policy does not.
        won: rows that the policy answers correctly and the compared model does not.
        rows: all rows.
    """

    lost: int
    won: int
    rows: int

    @property
    def mean_loss(self) -> float:
        """Loss of accuracy, a fraction of the rows; negative where the policy is more accurate."""
        return (self.lost - self.won) / self.rows if self.rows else 0.0

    @classmethod
    def of(cls, losses: np.ndarray) -> LossCounts:
        """Counts losses (rows,), each -1, 0 or 1."""
        return cls(int((losses > 0).sum()), int((losses < 0).sum()), len(losses))
