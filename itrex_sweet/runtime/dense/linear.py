"""Modules for float and INT8 linear layers and norms, in the form that compilers recognize and fuse."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.functional import linear

from itrex_sweet.runtime.encoder import AnyLinear, Linear, Norm, QuantizedLinear
from itrex_sweet.runtime.int8_linear import UINT8_MAX, UINT8_MIN, per_row_qparams
from itrex_sweet.runtime.norms import rms_norm


def linear_module(layer: AnyLinear) -> nn.Module:
    """Creates the module of a linear layer: (rows, in) → (rows, out)."""
    if isinstance(layer, QuantizedLinear):
        return DynamicLinear(layer) if layer.input_scale is None else StaticLinear(layer)
    module = nn.utils.skip_init(nn.Linear, *reversed(layer.weight.shape), bias=layer.bias is not None)
    module.weight = _constant(layer.weight)
    if layer.bias is not None:
        module.bias = _constant(layer.bias)
    return module


def concatenated_module(*layers: AnyLinear) -> nn.Module:
    """Creates one module for linear layers with a common input: (rows, in) → (rows, sum of out).

    Float layers are concatenated to one layer; so are quantized layers with the same input quantization.
    """
    if all(isinstance(layer, Linear) for layer in layers):
        return linear_module(Linear(torch.cat([layer.weight for layer in layers]), _concatenated_bias(layers)))
    if all(_have_same_input_quantization(layer, layers[0]) for layer in layers):
        return linear_module(
            QuantizedLinear(
                weight=torch.cat([layer.weight for layer in layers]),
                weight_scale=torch.cat([layer.weight_scale for layer in layers]),
                bias=_concatenated_bias(layers),
                input_scale=layers[0].input_scale,
                input_zero_point=layers[0].input_zero_point,
                input_smoothing=layers[0].input_smoothing,
            )
        )
    return ConcatenatedOutputs(layers)


class StaticLinear(nn.Module):
    """An INT8 layer with static input quantization: quantize, dequantize, multiply by the dequantized weight.

    oneDNN Graph recognizes this pattern, which IPEX's own conversion also creates, and computes it in integers. The
    weight stays a quantized constant, because freezing a TorchScript module does not fold `dequantize`.
    """

    def __init__(self, layer: QuantizedLinear):
        super().__init__()
        self.input_scale, self.input_zero_point = float(layer.input_scale), int(layer.input_zero_point)
        zeros = torch.zeros(len(layer.weight), dtype=torch.int64)
        weight = layer.weight.float() * layer.weight_scale[:, None]
        # Deprecated in torch 2.13, but the only form that compilers and exporters recognize.
        with warnings.catch_warnings():
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
    """An INT8 layer with dynamic input quantization per row, emulated in float32."""

    def __init__(self, layer: QuantizedLinear | DynamicLinear):
        super().__init__()
        self.register_buffer("weight", layer.weight)
        self.register_buffer("weight_scale", layer.weight_scale)
        self.register_buffer("bias", layer.bias)
        self.register_buffer("input_smoothing", layer.input_smoothing)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.input_smoothing is not None:
            states = states * self.input_smoothing
        scale, zero_point = per_row_qparams(states)
        quantized = (torch.round(states * (1.0 / scale)) + zero_point).clamp(UINT8_MIN, UINT8_MAX) - zero_point
        output = self.product(quantized) * (scale * self.weight_scale)
        return output if self.bias is None else output + self.bias

    def product(self, quantized: torch.Tensor) -> torch.Tensor:
        """Returns the product of the quantized input, in float32, and the int8 weight."""
        return linear(quantized, self.weight.float())


class ConcatenatedOutputs(nn.Module):
    """Concatenates the outputs of layers of different kinds with a common input."""

    def __init__(self, layers: tuple[AnyLinear, ...]):
        super().__init__()
        self.parts = nn.ModuleList(linear_module(layer) for layer in layers)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(states) for part in self.parts], dim=-1)


def replace_layers(module: nn.Module, replacements: Mapping[type, Callable[..., nn.Module]]) -> nn.Module:
    """Returns a copy of a module that shares its tensors, with layers replaced by what is created from them.

    Args:
        replacements: class of a layer → function of the layer that returns the new one.
    """
    if type(module) in replacements:
        return replacements[type(module)](module)
    clone = copy.copy(module)
    clone._modules = {
        name: None if child is None else replace_layers(child, replacements) for name, child in module._modules.items()
    }
    return clone


class RMSNorm(nn.Module):
    """A norm that does not subtract the mean."""

    def __init__(self, norm: Norm):
        super().__init__()
        self.register_buffer("weight", norm.weight)
        self.register_buffer("bias", norm.bias)
        self.eps = norm.eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return rms_norm(states, self.weight, self.bias, self.eps)


def norm_module(norm: Norm) -> nn.Module:
    """Creates the module of a norm."""
    if norm.is_rms:
        return RMSNorm(norm)
    module = nn.LayerNorm(len(norm.weight), eps=norm.eps, bias=norm.bias is not None)
    module.weight = _constant(norm.weight)
    if norm.bias is not None:
        module.bias = _constant(norm.bias)
    return module


def optional_norm(norm: Norm | None) -> nn.Module:
    """Creates the module of a norm, or one that changes nothing."""
    return nn.Identity() if norm is None else norm_module(norm)


def _constant(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _concatenated_bias(layers: tuple[AnyLinear, ...]) -> torch.Tensor | None:
    if all(layer.bias is None for layer in layers):
        return None
    return torch.cat([torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers])


def _have_same_input_quantization(layer: AnyLinear, other: AnyLinear) -> bool:
    """Returns True if both layers are quantized and have the same input quantization."""
    if not (isinstance(layer, QuantizedLinear) and isinstance(other, QuantizedLinear)):
        return False
    if (layer.input_scale, layer.input_zero_point) != (other.input_scale, other.input_zero_point):
        return False
    if layer.input_smoothing is None or other.input_smoothing is None:
        return layer.input_smoothing is other.input_smoothing
    return torch.equal(layer.input_smoothing, other.input_smoothing)
