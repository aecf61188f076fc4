"""Counts of values by bucket, filled with arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class Histogram:
    """Numbers of values at most as large as each bound, as Prometheus counts them.

    Args:
        bounds: rising upper bounds of the buckets; the last bucket has none.

    Attributes:
        counts: (bounds + 1,) int64, not cumulative.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]):
        self.bounds = np.asarray(bounds, dtype=np.float64)
        self.counts = np.zeros(len(self.bounds) + 1, dtype=np.int64)
        self.sum = 0.0

    def add(self, values: np.ndarray) -> None:
        """Counts values, an array of any length."""
        self.counts += np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        self.sum += float(np.sum(values))


def quantiles(bounds: np.ndarray, counts: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Returns quantiles of values that are known by bucket, linear within a bucket: (..., shares), NaN without values.

    Args:
        bounds: (buckets - 1,) rising upper bounds; values of the last bucket count as the last bound.
        counts: (..., buckets).
        shares: in [0, 1].
    """
    edges = np.concatenate([[0.0], bounds, bounds[-1:]])
    totals = np.cumsum(counts, axis=-1)
    found = np.full((*counts.shape[:-1], len(shares)), np.nan)
    for place, share in enumerate(shares):
        target = share * totals[..., -1]
        bucket = np.minimum((totals < target[..., None]).sum(axis=-1), counts.shape[-1] - 1)
        inside = np.take_along_axis(counts, bucket[..., None], axis=-1)[..., 0]
        below = np.take_along_axis(totals, bucket[..., None], axis=-1)[..., 0] - inside
        with np.errstate(invalid="ignore", divide="ignore"):
            part = np.clip((target - below) / inside, 0.0, 1.0)
        found[..., place] = edges[bucket] + part * (edges[bucket + 1] - edges[bucket])
    return found
