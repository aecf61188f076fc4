"""Gradient clipping that does not couple what shall not be coupled."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def clip_by_group(groups: Iterable[Iterable[nn.Parameter]], max_norm: float) -> list[torch.Tensor]:
    """Clips each group's gradient to a norm of its own.

    One global norm would couple the exits: a steep loss at one of them would shorten the steps of all.

    Args:
        groups: parameters that share a norm, such as a segment and its head; frozen ones are passed over.
        max_norm: largest L2 norm of one group's gradient.

    Returns:
        The norm of each group before clipping, a scalar; 0 where nothing has a gradient.
    """
    return [
        nn.utils.clip_grad_norm_([one for one in parameters if one.grad is not None], max_norm) for parameters in groups
    ]
