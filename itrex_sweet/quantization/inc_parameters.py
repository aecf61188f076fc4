"""The quantization parameters of a linear layer, from either path of Neural Compressor."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class QuantizationParameters:
    """Scales of one linear layer.

    Args:
        weight_scale: (out,), symmetric.
        input_scale: of the uint8 input; `None` where it is measured at run time.
        input_zero_point: 0 to 255; `None` with `input_scale`.
    """

    weight_scale: torch.Tensor
    input_scale: float | None
    input_zero_point: int | None

    def __post_init__(self) -> None:
        # The observers' floor, where the input was 0 throughout: any other value would be cut off at run time.
        if self.input_scale is not None and self.input_scale <= torch.finfo(torch.float32).eps:
            object.__setattr__(self, "input_scale", 1.0)
            object.__setattr__(self, "input_zero_point", 0)
