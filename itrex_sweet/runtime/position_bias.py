"""Position bias of attention scores, in torch."""

from __future__ import annotations

import torch


def columns_of(positions: torch.Tensor) -> torch.Tensor:
    """Returns the positions that distances are counted by, (rows, length), from those of `TokenBatch`.

    These are equal, except in a row with padding tokens among the others: it counts all its tokens. Padding tokens that
    are masked leave no trace in either, so distances across them are counted without them.
    """
    counts_without_padding = (positions < 0).any(dim=-1, keepdim=True)
    return torch.where(counts_without_padding, torch.arange(positions.shape[-1], device=positions.device), positions)


def biases(table: torch.Tensor, query_positions: torch.Tensor, key_positions: torch.Tensor) -> torch.Tensor:
    """Returns the bias of each query and key: (rows, heads, queries, keys).

    Args:
        table: `Encoder.position_bias`.
        query_positions, key_positions: (rows, queries) and (rows, keys) int64, of `columns_of`.
    """
    limit = table.shape[1] // 2
    distances = key_positions[:, None, :] - query_positions[:, :, None]
    return table[:, distances.clamp(-limit, limit) + limit].transpose(0, 1)
