"""INT8 linear layers as ONNX operators, so that files store 8 bits per weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from itrex_sweet.runtime.dense.linear import DynamicLinear, StaticLinear, replace_layers
from itrex_sweet.runtime.int8_linear import UINT8_MAX, UINT8_MIN

_ONNX_FLOAT = 1  # TensorProto.FLOAT


def onnx_module(module: nn.Module) -> nn.Module:
    """Returns a copy of a module that shares its tensors, with INT8 layers replaced."""
    return replace_layers(module, {StaticLinear: _OnnxStaticLinear, DynamicLinear: _OnnxDynamicLinear})


class _DequantizedWeight(torch.autograd.Function):
    """An int8 weight (in, out) times its scale (out,) in float; a DequantizeLinear in ONNX."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return weight.float() * scale

    @staticmethod
    def symbolic(g: Any, weight: Any, scale: Any) -> Any:
        # A constant per layer: with a shared one, ONNX Runtime fails with `session.x64quantprecision`.
        zeros = g.op("Constant", value_t=torch.zeros(scale.type().sizes(), dtype=torch.int8))
        return g.op("DequantizeLinear", weight, scale, zeros, axis_i=1)


class _OnnxStaticLinear(nn.Module):
    """QuantizeLinear and DequantizeLinear before a MatMul, which ONNX Runtime fuses to integer arithmetic.

    The product has a leading axis of size one. Otherwise ONNX Runtime fuses MatMul and bias to a Gemm, whose integer
    version needs an integer bias, and rounding the bias changes all inputs of the next layer.
    """

    def __init__(self, layer: StaticLinear):
        super().__init__()
        self.input_scale, self.input_zero_point = layer.input_scale, layer.input_zero_point
        self.register_buffer("input_smoothing", layer.input_smoothing)
        self.register_buffer("weight", layer.weight.int_repr().t().contiguous())
        self.register_buffer("weight_scale", layer.weight.q_per_channel_scales().float())
        self.register_buffer("bias", layer.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.input_smoothing is not None:
            states = states * self.input_smoothing
        states = torch.fake_quantize_per_tensor_affine(
            states, self.input_scale, self.input_zero_point, UINT8_MIN, UINT8_MAX
        )
        output = states.unsqueeze(0) @ _DequantizedWeight.apply(self.weight, self.weight_scale)
        return (output if self.bias is None else output + self.bias).squeeze(0)


class _CastWeight(torch.autograd.Function):
    """An int8 weight in float; a Cast in ONNX, which is folded when the file is loaded, not when it is written."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight.float()

    @staticmethod
    def symbolic(g: Any, weight: Any) -> Any:
        return g.op("Cast", weight, to_i=_ONNX_FLOAT)


class _OnnxDynamicLinear(DynamicLinear):
    """Dynamic quantization with a scale per row, emulated in float32; that of ONNX has one scale per tensor.

    The weight is cast: after a DequantizeLinear, ONNX Runtime would quantize the input again.
    """

    def __init__(self, layer: DynamicLinear):
        super().__init__(layer)
        self.weight = layer.weight.t().contiguous()

    def product(self, quantized: torch.Tensor) -> torch.Tensor:
        return quantized @ _CastWeight.apply(self.weight)
