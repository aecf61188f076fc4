"""Converts subgraphs to OpenVINO models. The CPU plugin computes static INT8 layers in integers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from itrex_sweet.runtime.dense.linear import StaticLinear, replace_layers
from itrex_sweet.runtime.int8_linear import UINT8_MAX, UINT8_MIN

if TYPE_CHECKING:
    from openvino import CompiledModel, Model


def openvino_model(
    module: nn.Module, examples: tuple[torch.Tensor, ...], inputs: Mapping[str, tuple[int, ...]], output: str
) -> Model:
    """Traces a module and converts it.

    Args:
        module: takes the inputs in order and returns one tensor.
        examples: example inputs.
        inputs: name of each input → its sizes, -1 for dynamic ones, in order.
        output: name of the output.
    """
    import openvino
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of data-dependent control flow
        traced = torch.jit.trace(
            replace_layers(module, {StaticLinear: _FakeQuantizedLinear}), examples, check_trace=False
        )
        # The steps of openvino.convert_model, which would also send usage statistics over the network.
        frontend, decoder = FrontEndManager().load_by_framework("pytorch"), TorchScriptPythonDecoder(traced)
        model = frontend.convert(frontend.load(decoder))
    for (name, sizes), parameter in zip(inputs.items(), model.inputs, strict=True):
        parameter.set_names({name})
        parameter.node.set_friendly_name(name)
        parameter.node.set_partial_shape(openvino.PartialShape(list(sizes)))
    model.outputs[0].set_names({output})
    model.validate_nodes_and_infer_types()
    apply_moc_transformations(model, cf=False)  # folds the ranges of FakeQuantize; 8-bit weights stay
    return model


class _FakeQuantizedLinear(nn.Module):
    """The form of NNCF: FakeQuantize before a product with an int8 weight, which is converted and scaled.

    With smoothing, the input has a leading axis of size one: OpenVINO 2026.4 fuses a multiplication per channel into
    FakeQuantize, and computes that wrongly for inputs of two dimensions with dynamic sizes.
    """

    def __init__(self, layer: StaticLinear):
        super().__init__()
        self.input_scale, self.input_zero_point = layer.input_scale, layer.input_zero_point
        self.register_buffer("input_smoothing", layer.input_smoothing)
        self.register_buffer("weight", layer.weight.int_repr())
        self.register_buffer("weight_scale", layer.weight.q_per_channel_scales().float()[:, None])
        self.register_buffer("bias", layer.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.input_smoothing is None:
            return self._product(states)
        return self._product(states.unsqueeze(0) * self.input_smoothing).squeeze(0)

    def _product(self, states: torch.Tensor) -> torch.Tensor:
        states = torch.fake_quantize_per_tensor_affine(
            states, self.input_scale, self.input_zero_point, UINT8_MIN, UINT8_MAX
        )
        return nn.functional.linear(states, self.weight.float() * self.weight_scale, self.bias)


def compile_on_cpu(model: Model, threads: int, dtype: str = "float32") -> CompiledModel:
    """Compiles a model for the CPU, for calls of one request at a time.

    Args:
        threads: number of threads of a call.
        dtype: `"float32"` or `"bfloat16"`, for what is not INT8. OpenVINO's default depends on the processor.
    """
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
    }
    return openvino.Core().compile_model(model, "CPU", settings)


def count_integer_products(compiled: CompiledModel) -> int:
    """Returns the number of linear layers that run with 8-bit kernels."""
    layers = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
    kernels = [
        layer["primitiveType"].astype(str) for layer in layers if layer["layerType"].astype(str) == "FullyConnected"
    ]
    return sum(kernel.lower().endswith("i8") for kernel in kernels)
