"""8-bit linear layers in exact integer arithmetic: what every INT8 backend has to agree with.

The sums are those of int32: all products and partial sums are whole numbers below 2⁵³, which float64 holds exactly in
whatever order they are added, and far below 2³¹ for any layer of fewer than 66 000 inputs.
"""

from __future__ import annotations

import torch

from itrex_sweet.runtime.encoder import QuantizedLinear

LEAST, MOST = 0, 255  # of the quantized input, uint8


def linear(layer: QuantizedLinear, states: torch.Tensor) -> torch.Tensor:
    """Quantizes the input, multiplies in integers, and scales the sums back: (rows, in) → (rows, out) float32.

    `y = (Σ (q - zero point) w) · (input scale · weight scale) + bias` (Jacob et al. 2018, arXiv 1712.05877, section
    2.2, with a zero point for the input only).
    """
    if layer.input_smoothing is not None:
        states = states * layer.input_smoothing
    scale, zero_point = input_range(layer, states)
    sums = accumulate(quantize(states, scale, zero_point), zero_point, layer.weight)
    output = sums.float() * (scale * layer.weight_scale)
    return output if layer.bias is None else output + layer.bias


def input_range(layer: QuantizedLinear, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale, float32, and zero point, int32, of the input: both (1, 1) where they are fixed, else (rows, 1)."""
    if layer.input_scale is not None:
        return torch.tensor([[layer.input_scale]]), torch.tensor([[layer.input_zero_point]], dtype=torch.int32)
    return range_of_rows(states)


def range_of_rows(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of each row, so that its least and greatest value and 0 are covered.

    Args:
        states: (rows, in) float32.

    Returns:
        (rows, 1) float32 scale and (rows, 1) int32 zero point. A row of zeros has scale 1.
    """
    least = states.amin(dim=1, keepdim=True).clamp(max=0.0)
    most = states.amax(dim=1, keepdim=True).clamp(min=0.0)
    scale = (most - least) / (MOST - LEAST)
    scale = torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))
    return scale, torch.round(-least / scale).clamp(LEAST, MOST).to(torch.int32)


def quantize(states: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    """Nearest whole number (ties to even) of `states · (1 / scale)`, moved by the zero point, within 0 to 255.

    Returns:
        the shape of `states`, uint8. NaN becomes the zero point.
    """
    steps = torch.round(states * (1.0 / scale)) + zero_point
    return torch.where(steps.isnan(), zero_point, steps.clamp(LEAST, MOST)).to(torch.uint8)


def accumulate(quantized: torch.Tensor, zero_point: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Sums of products: (rows, in) uint8, (rows or 1, 1) int32 and (out, in) int8 → (rows, out) int32."""
    return torch.matmul((quantized - zero_point).double(), weight.double().t()).to(torch.int32)
