"""Hands an encoder's tensors to the engine, which packs copies of them."""

from __future__ import annotations

import ctypes
import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.encoder import AnyLinear, Embeddings, Encoder, Head, Layer, Norm, QuantizedLinear
from itrex_sweet.runtime.native.handle import EngineModel
from itrex_sweet.runtime.native.interface import (
    ACTIVATIONS,
    CDescription,
    CEmbeddings,
    CExit,
    CFloats,
    CHead,
    CLayer,
    CLinear,
    CNorm,
)
from itrex_sweet.runtime.native.library import Library

if TYPE_CHECKING:
    import torch

    Tensor = np.ndarray | torch.Tensor

# transformers' names → the engine's
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
_LAYER_LINEARS = ("query", "key", "value", "attention_output", "up", "down")


# Multiply-adds that a thread gets at least, as the engine decides it (`kLeastWork`).
BY_THE_ENGINE = -1


def new_model(
    library: Library,
    encoder: Encoder,
    threads: int,
    in_bfloat16: bool = False,
    least_work: int = BY_THE_ENGINE,
) -> EngineModel:
    """Makes the engine's model of an encoder.

    Args:
        threads: that a call of the model uses at most.
        in_bfloat16: whether the products of float layers are of bfloat16; heads and embeddings stay in float32.
        least_work: multiply-adds that a call must have for each thread; 0 uses all threads for every call.

    Raises:
        BackendUnavailable: the engine does not know such layers.
        SweetError: tensors whose shapes or numbers do not fit one another, or too little memory.
    """
    refuse_unknown(encoder)
    description = _Description(in_bfloat16)
    in_c = description.of(encoder)
    return EngineModel(library, library.call("sweet_model_new", ctypes.byref(in_c), threads, least_work))


def refuse_unknown(encoder: Encoder) -> None:
    """Names what the engine cannot compute.

    Raises:
        BackendUnavailable: disentangled attention, a convolution, or an activation it does not know.
    """
    if any(layer.relative is not None or layer.convolution is not None for layer in encoder.layers):
        raise BackendUnavailable(
            "The native engine does not know DeBERTa's disentangled attention. Run this artifact with backend='torch', "
            "or backend='ipex' where it is installed."
        )
    for activation in {encoder.activation, *(probe.head.activation for probe in encoder.probes)}:
        if activation not in _ACTIVATIONS:
            raise BackendUnavailable(
                f"The native engine does not know the activation {activation!r}, only {', '.join(_ACTIVATIONS)}. Run "
                "this artifact with backend='torch'."
            )


_Anything = ctypes.c_char * 0


def address(array: np.ndarray) -> int:
    """Where an array's numbers are: `array.ctypes.data`, in a fifth of the time."""
    return ctypes.addressof(_Anything.from_buffer(array)) if array.flags.writeable else array.ctypes.data


class _Description:
    """Builds the C structures, and keeps alive what they point at."""

    def __init__(self, in_bfloat16: bool) -> None:
        self._in_bfloat16 = in_bfloat16
        self._kept: list[Any] = []

    def of(self, encoder: Encoder) -> CDescription:
        place = {id(layer): index for index, layer in enumerate(encoder.layers)}
        before = list(accumulate(map(len, encoder.segments)))
        layers = (CLayer * len(place))(*map(self._layer, encoder.layers))
        exits = (CExit * len(encoder.probes))(
            *(
                CExit(self._head(probe.head), count, place[id(probe.layer)])
                for probe, count in zip(encoder.probes, before, strict=True)
            )
        )
        self._kept += [layers, exits]
        return CDescription(
            self._embeddings(encoder.embeddings, encoder.uncounted_token),
            layers,
            exits,
            len(layers),
            before[-1],
            len(exits),
            _int32("num_attention_heads", encoder.num_attention_heads),
            _activation(encoder.activation),
            encoder.score_scale,
            encoder.hidden_size,
            0,
        )

    def _layer(self, layer: Layer) -> CLayer:
        linears = (self._linear(getattr(layer, name), self._in_bfloat16) for name in _LAYER_LINEARS)
        return CLayer(*linears, self._norm(layer.attention_norm), self._norm(layer.output_norm))

    def _head(self, head: Head) -> CHead:
        return CHead(self._linear(head.dense), self._linear(head.classifier), _activation(head.activation), 0)

    def _embeddings(self, tables: Embeddings, uncounted_token: int | None) -> CEmbeddings:
        parts = [tables.words, tables.positions, tables.token_types]
        return CEmbeddings(
            *(self._floats(part) for part in parts),
            *(0 if part is None else len(part) for part in (tables.words, tables.positions, tables.token_types)),
            tables.words.shape[1],
            0 if uncounted_token is None else _int32("the padding token", uncounted_token + 1),
            0,
            self._norm(tables.norm),
            self._linear(tables.projection_before_norm),
            self._linear(tables.projection_after_norm),
        )

    def _linear(self, layer: AnyLinear | None, in_bfloat16: bool = False) -> CLinear:
        if layer is None:
            return CLinear()
        out, in_ = layer.weight.shape
        if not isinstance(layer, QuantizedLinear):
            weight = self._address(layer.weight, np.float32)
            return CLinear(
                weight, out * in_, CFloats(), self._floats(layer.bias), CFloats(), 0.0, 0, in_, out, in_bfloat16, 0
            )
        is_fixed = layer.input_scale is not None
        return CLinear(
            self._address(layer.weight, np.int8),
            out * in_,
            self._floats(layer.weight_scale),
            self._floats(layer.bias),
            self._floats(layer.input_smoothing),
            layer.input_scale if is_fixed else 0.0,
            _int32("input_zero_point", layer.input_zero_point) if is_fixed else 0,
            in_,
            out,
            0,
            is_fixed,
        )

    def _norm(self, norm: Norm) -> CNorm:
        return CNorm(self._floats(norm.weight), self._floats(norm.bias), norm.eps, len(norm.weight))

    def _floats(self, tensor: Tensor | None) -> CFloats:
        return CFloats() if tensor is None else CFloats(self._address(tensor, np.float32), math.prod(tensor.shape))

    def _address(self, tensor: Tensor, dtype: type[np.generic]) -> int:
        """Returns the address of the values as a contiguous array of this dtype, copied only where necessary."""
        array = np.ascontiguousarray(tensor if isinstance(tensor, np.ndarray) else tensor.detach().numpy(), dtype)
        self._kept.append(array)
        return address(array)


def _int32(what: str, value: Any) -> int:
    """A number that 32 bits hold; ctypes would cut off the rest without a word."""
    if isinstance(value, int) and -(2**31) <= value < 2**31:
        return value
    raise SweetError(f"{what} is {value!r}, no whole number of 32 bits")


def _activation(name: str) -> int:
    return ACTIVATIONS[_ACTIVATIONS[name]]
