"""A learning rate for the exits that is a multiple of the model's, with any optimizer and any schedule."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class ExitRate:
    """Lengthens each step that an optimizer takes on some parameters: `p ← p_before + m (p - p_before)`.

    Where an optimizer's step is proportional to its learning rate, as with SGD and AdamW, weight decay included, that
    is to the bit of rounding a rate m times as high. The optimizer's groups and state are those without it.

    Args:
        multiplier: m, positive.
    """

    def __init__(self, multiplier: float):
        self.multiplier = multiplier
        self._before: list[tuple[nn.Parameter, torch.Tensor]] = []

    def before_step(self, parameters: Iterable[nn.Parameter]) -> None:
        """Notes where a step begins, for those that have a gradient."""
        if self.multiplier != 1.0:
            self._before = [(one, one.detach().clone()) for one in parameters if one.grad is not None]

    @torch.no_grad()
    def after_step(self) -> None:
        """Lengthens the step since `before_step`."""
        for parameter, before in self._before:
            parameter.copy_(torch.lerp(before, parameter, self.multiplier))
        self._before = []
