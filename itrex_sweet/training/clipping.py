"""Gradient clipping that does not couple the exits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn


def clip_by_segment(segments: Mapping[int, Iterable[nn.Parameter]], max_norm: float) -> dict[int, torch.Tensor]:
    """Clips each segment's gradient to a norm of its own.

    One global norm would couple the exits: a steep loss at one of them would shorten the steps of all.

    Args:
        segments: exit → the parameters of its segment and head; frozen ones are passed over.
        max_norm: largest L2 norm of one segment's gradient.

    Returns:
        Exit → the norm before clipping, a scalar; 0 where nothing has a gradient.
    """
    return {
        exit_: nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], max_norm)
        for exit_, parameters in segments.items()
    }
