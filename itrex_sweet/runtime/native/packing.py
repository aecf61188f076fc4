"""Creation of an engine model from the tensors of an encoder, which the engine copies and packs."""

from __future__ import annotations

import ctypes
import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.encoder import (
    AnyLinear,
    Convolution,
    Embeddings,
    Encoder,
    Head,
    Layer,
    Linear,
    Norm,
    QuantizedLinear,
    QuantizedTable,
    Rotary,
)
from itrex_sweet.runtime.native.handle import EngineModel
from itrex_sweet.runtime.native.interface import (
    ACTIVATIONS,
    POOLINGS,
    CDescription,
    CEmbeddings,
    CExit,
    CFloats,
    CHead,
    CLayer,
    CLinear,
    CNorm,
    CRotary,
)
from itrex_sweet.runtime.native.library import Library

if TYPE_CHECKING:
    import torch

    Tensor = np.ndarray | torch.Tensor

# activation in transformers → activation in the engine
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
    "silu": "silu",
    "swish": "silu",
}
# `kMaxInputs` in csrc/check.h
_MAX_INPUTS = 65536
_LAYER_LINEARS = ("query", "key", "value", "attention_output", "up", "down")


def create_model(library: Library, encoder: Encoder, use_bfloat16: bool = False) -> EngineModel:
    """Creates the engine's model of an encoder.

    Args:
        use_bfloat16: compute the products of float layers in bfloat16; heads and embeddings stay in float32.

    Raises:
        BackendUnavailable: the engine does not support a layer.
        SweetError: inconsistent shapes, values out of range, or out of memory.
    """
    check_supported(encoder)
    builder = _DescriptionBuilder(use_bfloat16)
    description = builder.build(encoder)
    return EngineModel(library, library.call("sweet_model_new", ctypes.byref(description)))


def check_supported(encoder: Encoder) -> None:
    """Checks that the engine supports all layers of an encoder.

    Raises:
        BackendUnavailable: it has an unsupported activation, window, pooling or convolution.
    """
    for layer in encoder.layers:
        if layer.window is not None and layer.window < 1:
            raise BackendUnavailable(
                f"The native engine does not support an attention window of {layer.window}; expected at least 1. "
                "Run this artifact with backend='torch'."
            )
    for pooling in {probe.head.pooling for probe in encoder.probes} - POOLINGS.keys():
        raise BackendUnavailable(
            f"The native engine does not support the pooling {pooling!r}; expected one of {', '.join(POOLINGS)}. "
            "Run this artifact with backend='torch'."
        )
    convolutions = [layer.convolution for layer in encoder.layers if layer.convolution is not None]
    for convolution in convolutions:
        inputs = encoder.hidden_size * convolution.weight.shape[2]
        if inputs > _MAX_INPUTS:
            raise BackendUnavailable(
                f"The native engine does not support a convolution of width {convolution.weight.shape[2]} over "
                f"{encoder.hidden_size} channels: it would read {inputs} values, and the maximum is {_MAX_INPUTS}. Run "
                "this artifact with backend='torch'."
            )
    activations = {encoder.activation, *(probe.head.activation for probe in encoder.probes)}
    for activation in activations.union(convolution.activation for convolution in convolutions):
        if activation not in _ACTIVATIONS:
            raise BackendUnavailable(
                f"The native engine does not support the activation {activation!r}; expected one of "
                f"{', '.join(_ACTIVATIONS)}. Run this artifact with backend='torch'."
            )


_EmptyBuffer = ctypes.c_char * 0


def data_pointer(array: np.ndarray) -> int:
    """Returns `array.ctypes.data`, in a fifth of the time for writeable arrays."""
    return ctypes.addressof(_EmptyBuffer.from_buffer(array)) if array.flags.writeable else array.ctypes.data


class _DescriptionBuilder:
    """Builds the C structures and keeps alive the arrays that they point to."""

    def __init__(self, use_bfloat16: bool) -> None:
        self._use_bfloat16 = use_bfloat16
        self._arrays: list[Any] = []

    def build(self, encoder: Encoder) -> CDescription:
        layer_index = {id(layer): index for index, layer in enumerate(encoder.layers)}
        full_layers = list(accumulate(map(len, encoder.segments)))
        layers = (CLayer * len(layer_index))(*map(self._layer, encoder.layers))
        exits = (CExit * len(encoder.probes))(
            *(
                CExit(self._head(probe.head), self._norm(probe.norm), count, layer_index[id(probe.layer)])
                for probe, count in zip(encoder.probes, full_layers, strict=True)
            )
        )
        self._arrays += [layers, exits]
        return CDescription(
            self._embeddings(encoder.embeddings, encoder.padding_idx),
            layers,
            exits,
            len(layers),
            full_layers[-1],
            len(exits),
            _int32("num_attention_heads", encoder.num_attention_heads),
            _activation(encoder.activation),
            encoder.score_scale,
            encoder.hidden_size,
            *self._relative_index(encoder),
            encoder.norm_first,
            _max_length(encoder),
            self._floats(encoder.position_bias),
        )

    def _relative_index(self, encoder: Encoder) -> tuple[int, int | None, int]:
        """Returns the number of buckets of relative positions, and the address and size of the index."""
        terms = (layer.relative for layer in encoder.layers if layer.relative is not None)
        tables = [table for relative in terms for table in (relative.key, relative.query) if table is not None]
        if not tables:
            return 0, None, 0
        index = encoder.relative_index
        return tables[0].shape[1], self._data_pointer(index, np.int64), len(index)

    def _layer(self, layer: Layer) -> CLayer:
        linears = (self._linear(getattr(layer, name), self._use_bfloat16) for name in _LAYER_LINEARS)
        relative, convolution = layer.relative, layer.convolution
        return CLayer(
            *linears,
            self._norm(layer.attention_norm),
            self._norm(layer.output_norm),
            self._linear(layer.gate, self._use_bfloat16),
            self._rotary(layer.rotary),
            *(self._floats(getattr(relative, name, None)) for name in ("key", "query")),
            CLinear() if convolution is None else self._linear(_over_windows(convolution), self._use_bfloat16),
            CNorm() if convolution is None else self._norm(convolution.norm),
            0 if convolution is None else _activation(convolution.activation),
            0 if layer.window is None else _int32("window", layer.window),
        )

    def _head(self, head: Head) -> CHead:
        return CHead(
            self._linear(head.dense),
            self._linear(head.classifier),
            self._norm(head.norm),
            _activation(head.activation),
            POOLINGS[head.pooling],
        )

    def _embeddings(self, tables: Embeddings, padding_idx: int | None) -> CEmbeddings:
        words, scale, dtype = tables.words, None, np.float32
        if isinstance(words, QuantizedTable):
            words, scale, dtype = words.weight, words.scale, np.int8
        return CEmbeddings(
            self._data_pointer(words, dtype),
            math.prod(words.shape),
            *(self._floats(part) for part in (scale, tables.positions, tables.token_types)),
            *(0 if part is None else len(part) for part in (tables.words, tables.positions, tables.token_types)),
            tables.words.shape[1],
            0 if padding_idx is None else _int32("the padding index", padding_idx + 1),
            0,
            self._norm(tables.norm),
            self._linear(tables.projection_before_norm),
            self._linear(tables.projection_after_norm),
        )

    def _linear(self, layer: AnyLinear | None, use_bfloat16: bool = False) -> CLinear:
        if layer is None:
            return CLinear()
        out, in_ = layer.weight.shape
        if not isinstance(layer, QuantizedLinear):
            weight = self._data_pointer(layer.weight, np.float32)
            return CLinear(
                weight, out * in_, CFloats(), self._floats(layer.bias), CFloats(), 0.0, 0, in_, out, use_bfloat16, 0
            )
        is_static = layer.input_scale is not None
        return CLinear(
            self._data_pointer(layer.weight, np.int8),
            out * in_,
            self._floats(layer.weight_scale),
            self._floats(layer.bias),
            self._floats(layer.input_smoothing),
            layer.input_scale if is_static else 0.0,
            _int32("input_zero_point", layer.input_zero_point) if is_static else 0,
            in_,
            out,
            0,
            is_static,
        )

    def _rotary(self, rotary: Rotary | None) -> CRotary:
        if rotary is None:
            return CRotary()
        return CRotary(self._floats(rotary.inverse_frequencies), rotary.scaling, 0)

    def _norm(self, norm: Norm | None) -> CNorm:
        if norm is None:
            return CNorm()
        return CNorm(self._floats(norm.weight), self._floats(norm.bias), norm.eps, len(norm.weight), norm.is_rms, 0)

    def _floats(self, tensor: Tensor | None) -> CFloats:
        return CFloats() if tensor is None else CFloats(self._data_pointer(tensor, np.float32), math.prod(tensor.shape))

    def _data_pointer(self, tensor: Tensor, dtype: type[np.generic]) -> int:
        """Returns the address of the values as a contiguous array of this dtype, copied only where necessary."""
        array = np.ascontiguousarray(tensor if isinstance(tensor, np.ndarray) else tensor.detach().numpy(), dtype)
        self._arrays.append(array)
        return data_pointer(array)


def _over_windows(convolution: Convolution) -> Linear:
    """Returns the convolution as a linear layer of the states around a token: (hidden, width · hidden)."""
    weight = np.asarray(convolution.weight)
    hidden, per_group, width = weight.shape
    dense = np.zeros((hidden, width, hidden), np.float32)
    for group in range(convolution.groups):
        outputs = slice(group * (hidden // convolution.groups), (group + 1) * (hidden // convolution.groups))
        inputs = slice(group * per_group, (group + 1) * per_group)
        dense[outputs, :, inputs] = weight[outputs].transpose(0, 2, 1)
    return Linear(dense.reshape(hidden, width * hidden), convolution.bias)


def _int32(name: str, value: Any) -> int:
    """Returns the value if it fits in int32; ctypes would truncate it without an error."""
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return value
    raise SweetError(f"{name} is {value!r}; expected an integer of 32 bits")


def _max_length(encoder: Encoder) -> int:
    """Returns the maximum number of tokens per row if a layer has rotary positions, else 0: unlimited."""
    if all(layer.rotary is None for layer in encoder.layers):
        return 0
    return _int32("max_tokens", encoder.max_tokens)


def _activation(name: str) -> int:
    return ACTIVATIONS[_ACTIVATIONS[name]]
