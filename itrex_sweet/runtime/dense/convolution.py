"""DeBERTa-v2's convolution beside the first layer, over padded rows."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from itrex_sweet.runtime.dense.linear import norm_module
from itrex_sweet.runtime.encoder import Convolution


class NeighbourConvolution(nn.Module):
    """Adds the convolution of the states before a layer to those after it, and norms.

    Neighbours go by position, not by column: a hole between two tokens counts as zeros.

    Args of a call:
        before: (rows, length, hidden), entering the layer.
        mask: (rows, length) bool.
        positions: (rows, length) int64.
        of_after: (rows, tokens) int64, positions of the tokens in `after`.
        after: (rows, tokens, hidden), leaving the layer.

    Returns:
        the shape of `after`.
    """

    def __init__(self, convolution: Convolution):
        super().__init__()
        self.groups, self.width = convolution.groups, convolution.weight.shape[2]
        self.register_buffer("weight", convolution.weight)
        self.register_buffer("bias", convolution.bias)
        self.activation = ACT2FN[convolution.activation]
        self.norm = norm_module(convolution.norm)

    def forward(
        self,
        before: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        of_after: torch.Tensor,
        after: torch.Tensor,
    ) -> torch.Tensor:
        half = self.width // 2
        neighbours = []
        for offset in range(-half, self.width - half):
            stands_there = (positions[:, None, :] == of_after[:, :, None] + offset) & mask[:, None, :]
            neighbours.append(torch.bmm(stands_there.to(before.dtype), before))
        window = torch.stack(neighbours, dim=-1).flatten(0, 1)
        convolved = nn.functional.conv1d(window, self.weight, self.bias, groups=self.groups).view_as(after)
        return self.norm(after + self.activation(convolved))
