"""Relative positions: what of them depends on the weights alone, computed when the weights are read."""

from __future__ import annotations

import numpy as np

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.runtime.encoder import Linear, Norm

_MAX_BIAS_DISTANCE = 128  # of MPNet in transformers


def normed(table: np.ndarray, norm: Norm) -> np.ndarray:
    """Returns the table of relative positions, (2 buckets, hidden), after its layer norm."""
    centered = table - table.mean(axis=-1, keepdims=True, dtype=np.float64)
    variance = np.square(centered).mean(axis=-1, keepdims=True)
    return (centered / np.sqrt(variance + norm.eps) * norm.weight + norm.bias).astype(np.float32)


def projected_by_head(table: np.ndarray, linear: Linear, heads: int) -> np.ndarray:
    """Projects the table to keys or queries: (2 buckets, hidden) → (heads, 2 buckets, head size)."""
    rows = table @ linear.weight.T
    if linear.bias is not None:
        rows += linear.bias
    return np.ascontiguousarray(rows.reshape(len(rows), heads, -1).transpose(1, 0, 2))


def relative_index(model: Architecture, reach: int) -> np.ndarray:
    """Returns the row of the table for every distance between two positions, (2 reach - 1,) int64.

    Args:
        reach: number of positions; distances go from `1 - reach` to `reach - 1`.
    """
    distances = np.arange(-(reach - 1), reach, dtype=np.int64)
    if model.log_buckets:
        distances = _log_buckets(distances, model.log_buckets, model.max_distance)
    return (distances + model.buckets).clip(0, 2 * model.buckets - 1)


def _log_buckets(distances: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
    """Returns DeBERTa-v2's buckets of distances, exact up to half the buckets and logarithmic beyond, in float32.

    The logarithms are rounded from float64, since those of NumPy in float32 differ between processors.
    """
    half = buckets // 2
    magnitude = np.abs(distances)
    ratios = (np.maximum(magnitude, half).astype(np.float32) / np.float32(half)).astype(np.float64)
    greatest = np.log(np.float64(np.float32((max_distance - 1) / half))).astype(np.float32)
    steps = np.log(ratios).astype(np.float32) / greatest * np.float32(half - 1)
    logarithmic = (np.ceil(steps).astype(np.int64) + half) * np.sign(distances)
    return np.where(magnitude <= half, distances, logarithmic)


def position_bias(table: np.ndarray, reach: int) -> np.ndarray:
    """Returns the bias of each head for every distance of a key's position and a query's, (heads, 2 reach - 1).

    Half of the buckets are for keys behind the query; in each half the first ones are exact and the others logarithmic,
    up to a distance of 128 (Raffel et al. 2020, arXiv 1910.10683, section 2.1).

    Args:
        table: (buckets, heads) float32.
        reach: number of positions; distances go from `1 - reach` to `reach - 1`.
    """
    half = len(table) // 2
    distances = np.arange(-(reach - 1), reach, dtype=np.int64)
    exact, magnitude = half // 2, np.abs(distances)
    ratios = (np.maximum(magnitude, exact).astype(np.float32) / np.float32(exact)).astype(np.float64)
    greatest = np.float32(np.log(_MAX_BIAS_DISTANCE / exact))
    # Rounded from float64, as in `_log_buckets`.
    steps = np.log(ratios).astype(np.float32) / greatest * np.float32(half - exact)
    logarithmic = np.minimum(exact + steps.astype(np.int64), half - 1)
    buckets = np.where(magnitude < exact, magnitude, logarithmic) + half * (distances > 0)
    return np.ascontiguousarray(table[buckets].T)
