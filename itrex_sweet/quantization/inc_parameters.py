"""Quantization parameters of a linear layer, as both implementations of Neural Compressor return them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class QuantizationParameters:
    """Scales and zero point of a linear layer.

    Args:
        weight_scale: (out,), symmetric.
        input_scale: of the uint8 input; `None` if the input is quantized dynamically.
        input_zero_point: 0 to 255; `None` if `input_scale` is.
    """

    weight_scale: torch.Tensor
    input_scale: float | None
    input_zero_point: int | None

    def __post_init__(self) -> None:
        # The observers' minimum scale, for an input that was always 0: other values would be clipped at run time.
        if self.input_scale is not None and self.input_scale <= torch.finfo(torch.float32).eps:
            object.__setattr__(self, "input_scale", 1.0)
            object.__setattr__(self, "input_zero_point", 0)
