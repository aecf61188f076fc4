"""Layer norm and RMSNorm in torch."""

from __future__ import annotations

import torch
from torch.nn.functional import layer_norm

from itrex_sweet.runtime.encoder import Norm


def apply_norm(norm: Norm, states: torch.Tensor) -> torch.Tensor:
    """Applies a norm over the last axis."""
    if norm.is_rms:
        return rms_norm(states, norm.weight, norm.bias, norm.eps)
    return layer_norm(states, states.shape[-1:], norm.weight, norm.bias, norm.eps)


def rms_norm(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Divides by the root mean square over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4).

    Written out, because the ONNX exporter lacks torch's own; in float32, since squares of bfloat16 lose digits.
    """
    states = states.float()
    normed = weight * (states * torch.rsqrt(states.square().mean(dim=-1, keepdim=True) + eps))
    return normed if bias is None else normed + bias
