"""Linear layers, float or 8-bit, and norms as modules, in the form that compilers recognise and fuse."""

from __future__ import annotations

import warnings

import torch
from torch import nn
from torch.nn.functional import linear

from itrex_sweet.runtime.encoder import AnyLinear, Linear, Norm, QuantizedLinear
from itrex_sweet.runtime.int8_linear import UINT8_MAX, UINT8_MIN, per_row_qparams


def linear_module(layer: AnyLinear) -> nn.Module:
    """A linear layer as a module: (rows, in) → (rows, out)."""
    if isinstance(layer, QuantizedLinear):
        return DynamicLinear(layer) if layer.input_scale is None else StaticLinear(layer)
    module = nn.utils.skip_init(nn.Linear, *reversed(layer.weight.shape), bias=layer.bias is not None)
    module.weight = _constant(layer.weight)
    if layer.bias is not None:
        module.bias = _constant(layer.bias)
    return module


def stacked_module(*layers: AnyLinear) -> nn.Module:
    """Linear layers of one input as one module, the outputs side by side: (rows, in) → (rows, sum of out).

    Layers of one kind become one layer; quantized ones have to share how their input is quantized.
    """
    if all(isinstance(layer, Linear) for layer in layers):
        return linear_module(Linear(torch.cat([layer.weight for layer in layers]), _stacked_bias(layers)))
    if all(_same_input(layer, layers[0]) for layer in layers):
        return linear_module(
            QuantizedLinear(
                weight=torch.cat([layer.weight for layer in layers]),
                weight_scale=torch.cat([layer.weight_scale for layer in layers]),
                bias=_stacked_bias(layers),
                input_scale=layers[0].input_scale,
                input_zero_point=layers[0].input_zero_point,
                input_smoothing=layers[0].input_smoothing,
            )
        )
    return SideBySide(layers)


class StaticLinear(nn.Module):
    """An 8-bit layer whose input scale is fixed: quantize, dequantize, multiply by the dequantized weight.

    So oneDNN Graph recognises it (IPEX's own conversion writes the same), and computes it in integers. The weight stays
    a quantized constant: freezing a TorchScript module folds constants but leaves `dequantize` alone.
    """

    def __init__(self, layer: QuantizedLinear):
        super().__init__()
        self.input_scale, self.input_zero_point = float(layer.input_scale), int(layer.input_zero_point)
        zeros = torch.zeros(len(layer.weight), dtype=torch.int64)
        weight = layer.weight.float() * layer.weight_scale[:, None]
        with warnings.catch_warnings():  # torch 2.13 deprecates them; compilers and exporters recognise nothing newer
            warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor.*deprecated")
            quantized = torch.quantize_per_channel(weight, layer.weight_scale, zeros, axis=0, dtype=torch.qint8)
        self.register_buffer("weight", quantized)
        self.register_buffer("bias", layer.bias)
        self.register_buffer("input_smoothing", layer.input_smoothing)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.input_smoothing is not None:
            states = states * self.input_smoothing
        quantized = torch.quantize_per_tensor(states, self.input_scale, self.input_zero_point, torch.quint8)
        return linear(quantized.dequantize(), self.weight.dequantize(), self.bias)


class DynamicLinear(nn.Module):
    """An 8-bit layer whose input is quantized row by row, computed in float32 on whole numbers."""

    def __init__(self, layer: QuantizedLinear):
        super().__init__()
        self.register_buffer("weight", layer.weight)
        self.register_buffer("weight_scale", layer.weight_scale)
        self.register_buffer("bias", layer.bias)
        self.register_buffer("input_smoothing", layer.input_smoothing)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.input_smoothing is not None:
            states = states * self.input_smoothing
        scale, zero_point = per_row_qparams(states)
        steps = (torch.round(states * (1.0 / scale)) + zero_point).clamp(UINT8_MIN, UINT8_MAX) - zero_point
        output = linear(steps, self.weight.float()) * (scale * self.weight_scale)
        return output if self.bias is None else output + self.bias


class SideBySide(nn.Module):
    """Layers of different kinds over one input."""

    def __init__(self, layers: tuple[AnyLinear, ...]):
        super().__init__()
        self.parts = nn.ModuleList(linear_module(layer) for layer in layers)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(states) for part in self.parts], dim=-1)


def norm_module(norm: Norm) -> nn.LayerNorm:
    """A layer norm as a module."""
    module = nn.LayerNorm(len(norm.weight), eps=norm.eps)
    module.weight, module.bias = _constant(norm.weight), _constant(norm.bias)
    return module


def _constant(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _stacked_bias(layers: tuple[AnyLinear, ...]) -> torch.Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat([torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers])


def _same_input(layer: AnyLinear, other: AnyLinear) -> bool:
    """Whether two layers are quantized and quantize their input alike."""
    if not (isinstance(layer, QuantizedLinear) and isinstance(other, QuantizedLinear)):
        return False
    if (layer.input_scale, layer.input_zero_point) != (other.input_scale, other.input_zero_point):
        return False
    if layer.input_smoothing is None or other.input_smoothing is None:
        return layer.input_smoothing is other.input_smoothing
    return torch.equal(layer.input_smoothing, other.input_smoothing)
