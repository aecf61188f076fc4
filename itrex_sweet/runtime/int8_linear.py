"""Linear layers with int8 weights in exact integer arithmetic: the reference for every INT8 backend.

The sums equal those of int32: products and partial sums are integers below 2⁵³, which float64 represents exactly in any
order of summation, and they stay below 2³¹ for layers of fewer than 66 000 inputs.
"""

from __future__ import annotations

import torch

from itrex_sweet.runtime.encoder import QuantizedLinear

UINT8_MIN, UINT8_MAX = 0, 255


def int8_linear(layer: QuantizedLinear, states: torch.Tensor) -> torch.Tensor:
    """Quantizes the input, multiplies in integers and rescales: (rows, in) float32 → (rows, out) float32.

    `y = (Σ (q - zero_point) w) · (input_scale · weight_scale) + bias` (Jacob et al. 2018, arXiv 1712.05877, section
    2.2, with symmetric weights).
    """
    if layer.input_smoothing is not None:
        states = states * layer.input_smoothing
    scale, zero_point = input_qparams(layer, states)
    sums = int_matmul(quantize(states, scale, zero_point), zero_point, layer.weight)
    output = sums.float() * (scale * layer.weight_scale)
    return output if layer.bias is None else output + layer.bias


def input_qparams(layer: QuantizedLinear, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns scale (float32) and zero point (int32) of the input: both (1, 1) if static, (rows, 1) if dynamic."""
    if layer.input_scale is not None:
        return torch.tensor([[layer.input_scale]]), torch.tensor([[layer.input_zero_point]], dtype=torch.int32)
    return per_row_qparams(states)


def per_row_qparams(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns scale and zero point of each row, such that its minimum, its maximum and 0 are representable.

    Args:
        states: (rows, in) float32.

    Returns:
        (rows, 1) float32 scale and (rows, 1) int32 zero point. A row of zeros has scale 1.
    """
    minimum = states.amin(dim=1, keepdim=True).clamp(max=0.0)
    maximum = states.amax(dim=1, keepdim=True).clamp(min=0.0)
    scale = (maximum - minimum) / (UINT8_MAX - UINT8_MIN)
    scale = torch.where(scale > torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))
    return scale, torch.round(-minimum / scale).clamp(UINT8_MIN, UINT8_MAX).to(torch.int32)


def quantize(states: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    """Returns `states · (1 / scale)` rounded (ties to even), plus the zero point, clamped to uint8.

    Returns:
        the shape of `states`, uint8. NaN becomes the zero point.
    """
    quantized = torch.round(states * (1.0 / scale)) + zero_point
    return torch.where(quantized.isnan(), zero_point, quantized.clamp(UINT8_MIN, UINT8_MAX)).to(torch.uint8)


def int_matmul(quantized: torch.Tensor, zero_point: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Returns `(quantized - zero_point) @ weight.T`: (rows, in) uint8 and (out, in) int8 → (rows, out) int32."""
    return torch.matmul((quantized - zero_point).double(), weight.double().t()).to(torch.int32)
