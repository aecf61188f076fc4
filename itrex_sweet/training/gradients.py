"""Gradients of a model with exits: scaling between segments, early backward, clipping, checkpointed layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


def scale_gradient(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    """Returns the tensor unchanged, and multiplies the gradient that flows back through it.

    Args:
        tensor: any shape.
        scale: factor in [0, 1]; 0 detaches.
    """
    if scale == 0.0:
        return tensor.detach()
    return tensor if scale == 1.0 else _ScaleGradient.apply(tensor, scale)


class _ScaleGradient(torch.autograd.Function):
    """Identity function with a scaled gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.scale, None


def early_backward(loss: torch.Tensor, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Computes the gradient of a loss now, frees its graph, and returns the loss with that gradient attached.

    `backward` on the returned loss adds the precomputed gradient, times the upstream gradient, to `parameter.grad`.
    Until then the gradients take memory beside `parameter.grad`. A second `backward` raises, as it does for any graph
    that was freed.

    Args:
        loss: a scalar whose graph ends at these parameters and at no other tensor that requires a gradient.
        parameters: those without `requires_grad` are skipped.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    with torch.autocast(loss.device.type, enabled=False):  # backward does not run under autocast
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return _PrecomputedGradient.apply(loss.detach(), list(gradients), *parameters)


class _PrecomputedGradient(torch.autograd.Function):
    """A scalar with known gradients, which `backward` multiplies by the upstream gradient."""

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
        remaining, ctx.gradients = ctx.gradients[::-1], None
        scaled = []
        while remaining:  # frees each unscaled gradient before the next one is scaled
            gradient = remaining.pop()
            scaled.append(None if gradient is None else gradient * upstream)
        return (None, None, *scaled)


def clip_by_group(groups: Iterable[Iterable[nn.Parameter]], max_norm: float) -> list[torch.Tensor]:
    """Clips the gradient norm of each group of parameters separately.

    One global norm would couple the exits: a large gradient at one of them would shrink the updates of all.

    Args:
        groups: parameters clipped together, such as a segment and its head; those without a gradient are skipped.
        max_norm: maximum L2 norm of the gradient of a group.

    Returns:
        The norm of each group before clipping, a scalar; 0 for a group without gradients.
    """
    return [
        nn.utils.clip_grad_norm_([one for one in parameters if one.grad is not None], max_norm) for parameters in groups
    ]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Returns the L2 norm of all gradients, a float32 scalar; 0 without gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients).float() if gradients else torch.zeros(())


def is_checkpointed(layer: nn.Module) -> bool:
    """Returns `True` for a layer that gradient checkpointing runs again in backward."""
    return layer.training and getattr(layer, "gradient_checkpointing", False)


def is_checkpointed_reentrantly(layer: nn.Module) -> bool:
    """Returns `True` for a layer checkpointed by `torch.utils.checkpoint` with `use_reentrant=True`."""
    function = getattr(layer, "_gradient_checkpointing_func", None)
    return is_checkpointed(layer) and getattr(function, "keywords", {}).get("use_reentrant", True)
