"""Rotary positions and attention within a window, in torch."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

_QUERIES_AT_ONCE = 256  # bounds the score matrix of a layer with a window


def rotate(
    heads: torch.Tensor, positions: torch.Tensor, inverse_frequencies: torch.Tensor, scaling: float = 1.0
) -> torch.Tensor:
    """Rotates queries or keys by their positions (RoFormer, arXiv 2104.09864, equation 34, in two halves).

    Args:
        heads: (rows, heads, length, head size).
        positions: (rows, length) int64.
        inverse_frequencies: (head size / 2,) float32.
        scaling: factor of cosine and sine.
    """
    angles = positions[:, None, :, None].to(inverse_frequencies.dtype) * inverse_frequencies
    cosine, sine = angles.cos() * scaling, angles.sin() * scaling
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def windowed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, positions: torch.Tensor, window: int, scale: float
) -> torch.Tensor:
    """Computes attention of each token to the tokens at most `window` positions away, in blocks of queries.

    The memory is linear in the length.

    Args:
        query, key, value: (rows, heads, length, head size).
        positions: (rows, length) int64, increasing.
        scale: factor of the scores.
    """
    length = query.shape[2]
    parts = []
    for start in range(0, length, _QUERIES_AT_ONCE):
        stop = min(start + _QUERIES_AT_ONCE, length)
        # Positions increase at least as fast as columns, so the window in columns contains the window in positions.
        near = slice(max(start - window, 0), min(stop + window, length))
        distances = positions[:, start:stop, None] - positions[:, None, near]
        within = (distances.abs() <= window)[:, None]
        parts.append(
            scaled_dot_product_attention(
                query[:, :, start:stop], key[:, :, near], value[:, :, near], attn_mask=within, scale=scale
            )
        )
    return torch.cat(parts, dim=2)
