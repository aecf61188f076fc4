"""What may flow back through a cut between segments."""

from __future__ import annotations

from typing import Any

import torch


def cut(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    """The same values, through which only a share of the gradient flows back.

    Args:
        tensor: any shape.
        scale: share in [0, 1]; 0 detaches.
    """
    if scale == 0.0:
        return tensor.detach()
    return tensor if scale == 1.0 else _ScaledGradient.apply(tensor, scale)


class _ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied, so that the values forward are exact to the bit."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.scale, None
