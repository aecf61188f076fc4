"""The convolution of DeBERTa-v2's first layer, on padded rows."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from itrex_sweet.runtime.dense.linear import norm_module
from itrex_sweet.runtime.encoder import Convolution


class PositionConvolution(nn.Module):
    """Adds the convolution of a layer's input to its output, and normalizes.

    The convolution runs over positions, not columns: a position without a token counts as zeros.

    Args of `forward`:
        before: (rows, length, hidden), input of the layer.
        mask: (rows, length) bool.
        positions: (rows, length) int64.
        output_positions: (rows, tokens) int64, positions of the tokens in `after`.
        after: (rows, tokens, hidden), output of the layer.

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
        output_positions: torch.Tensor,
        after: torch.Tensor,
    ) -> torch.Tensor:
        half = self.width // 2
        neighbours = []
        for offset in range(-half, self.width - half):
            is_neighbour = (positions[:, None, :] == output_positions[:, :, None] + offset) & mask[:, None, :]
            neighbours.append(torch.bmm(is_neighbour.to(before.dtype), before))
        window = torch.stack(neighbours, dim=-1).flatten(0, 1)
        convolved = nn.functional.conv1d(window, self.weight, self.bias, groups=self.groups).view_as(after)
        return self.norm(after + self.activation(convolved))
