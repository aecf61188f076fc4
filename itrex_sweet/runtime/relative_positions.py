"""DeBERTa's relative positions: what of them depends on the weights alone, computed when the weights are read.

Torch computes it, with the functions that the model was trained with.
"""

from __future__ import annotations

import numpy as np
import torch

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.runtime.encoder import Linear, Norm
from itrex_sweet.runtime.torch_threads import one_thread_in_a_child


def normed(table: np.ndarray, norm: Norm) -> np.ndarray:
    """Returns the table of relative positions, (2 buckets, hidden), after its layer norm."""
    one_thread_in_a_child()
    weight, bias = torch.from_numpy(norm.weight), torch.from_numpy(norm.bias)
    return torch.nn.functional.layer_norm(torch.from_numpy(table), table.shape[-1:], weight, bias, norm.eps).numpy()


def projected_by_head(table: np.ndarray, linear: Linear, heads: int) -> np.ndarray:
    """Projects the table to keys or queries: (2 buckets, hidden) → (heads, 2 buckets, head size)."""
    one_thread_in_a_child()
    bias = None if linear.bias is None else torch.from_numpy(linear.bias)
    rows = torch.nn.functional.linear(torch.from_numpy(table), torch.from_numpy(linear.weight), bias)
    return rows.view(len(rows), heads, -1).transpose(0, 1).contiguous().numpy()


def relative_index(model: Architecture, reach: int) -> np.ndarray:
    """Returns the row of the table for every distance between two positions, (2 reach - 1,) int64.

    Args:
        reach: number of positions; distances go from `1 - reach` to `reach - 1`.
    """
    distances = torch.arange(-(reach - 1), reach)
    if model.log_buckets:
        distances = _log_buckets(distances, model.log_buckets, model.max_distance)
    return (distances + model.buckets).clamp(0, 2 * model.buckets - 1).numpy()


def _log_buckets(distances: torch.Tensor, buckets: int, max_distance: int) -> torch.Tensor:
    """Exact up to half the buckets, logarithmic beyond (DeBERTa-v2's position buckets), in float32 as trained."""
    half = buckets // 2
    magnitude = distances.abs().clamp(min=half).float()
    steps = torch.log(magnitude / half) / torch.log(torch.tensor((max_distance - 1) / half)) * (half - 1)
    logarithmic = (torch.ceil(steps) + half) * distances.sign()
    return torch.where(distances.abs() <= half, distances.float(), logarithmic).long()
