"""What may flow back through a cut between segments, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


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


def spend(loss: torch.Tensor, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """The same loss without what its graph kept of the forward: its gradient is worked out now, and handed on when
    backward comes.

    Until then the gradients are held besides those that the parameters have. A second backward raises, as it does
    through any graph that was freed.

    Args:
        loss: a scalar whose graph ends at these parameters and at nothing else that trains.
        parameters: frozen ones are passed over.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    with torch.autocast(loss.device.type, enabled=False):  # backward is not run under autocast
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return _HandedOn.apply(loss.detach(), list(gradients), *parameters)


class _HandedOn(torch.autograd.Function):
    """A value that hands on gradients known before, multiplied by its own."""

    @staticmethod
    def forward(
        ctx: Any, loss: torch.Tensor, gradients: list[torch.Tensor | None], *parameters: nn.Parameter
    ) -> torch.Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("backward through exits a second time: their graph was freed in the forward.")
        gradients, ctx.gradients = ctx.gradients[::-1], None
        handed_on = []
        while gradients:  # each is let go before the next is made
            gradient = gradients.pop()
            handed_on.append(None if gradient is None else gradient * upstream)
        return (None, None, *handed_on)
