"""The C interface of `csrc/api.h` in ctypes: structures, functions, and what a library must have been built for."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from typing import Any

# `kSweetInterface`
INTERFACE = 3

# `sweet_result`: all went well, on fewer threads than wanted
SHORT_OF_THREADS = 1

# `SWEET_READ_BEYOND`: floats behind the last row of states that kernels may read
READ_BEYOND = 16

# `sweet_activation`
ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "relu": 2, "tanh": 3, "silu": 4}

# Pointers to numbers are addresses: of NumPy's `array.ctypes.data`, of torch's `tensor.data_ptr()`; `None` is null.
# The code that fills a structure keeps the arrays that it points at alive until the call has returned.


class CFloats(Structure):
    """`sweet_floats`: an array of float32, `size` of them; null with size 0: no such array."""

    _fields_ = [("values", c_void_p), ("size", c_int64)]


class CLinear(Structure):
    """`sweet_linear`: int8 weights (out, in) with scales (out,), or float32 ones without; all 0: no such layer.

    `in_bfloat16`: a float layer whose weights and input are rounded to bfloat16. `input_is_fixed`: the input's scale
    and zero point hold for every row; else each row gets its own.
    """

    _fields_ = [
        ("weight", c_void_p),
        ("weight_size", c_int64),
        *((name, CFloats) for name in ("weight_scale", "bias", "smoothing")),
        ("input_scale", c_float),
        ("input_zero_point", c_int32),
        ("in_", c_int32),
        ("out", c_int32),
        ("in_bfloat16", c_int32),
        ("input_is_fixed", c_int32),
    ]


class CNorm(Structure):
    """`sweet_norm`: weight and bias (size,) float32."""

    _fields_ = [("weight", CFloats), ("bias", CFloats), ("eps", c_float), ("size", c_int32)]


class CLayer(Structure):
    """`sweet_layer`."""

    _fields_ = [
        *((name, CLinear) for name in ("query", "key", "value", "attention_output", "up", "down")),
        *((name, CNorm) for name in ("attention_norm", "output_norm")),
    ]


class CHead(Structure):
    """`sweet_head`; `activation` is one of `ACTIVATIONS`."""

    _fields_ = [("dense", CLinear), ("classifier", CLinear), ("activation", c_int32), ("unused", c_int32)]


class CExit(Structure):
    """`sweet_exit`."""

    _fields_ = [("head", CHead), ("full_layers", c_int32), ("layer", c_int32)]


class CEmbeddings(Structure):
    """`sweet_embeddings`: tables (number, width) float32."""

    _fields_ = [
        *((name, CFloats) for name in ("words", "positions", "token_types")),
        ("vocabulary", c_int32),
        ("num_positions", c_int32),
        ("num_token_types", c_int32),
        ("width", c_int32),
        ("position_offset", c_int32),
        ("unused", c_int32),
        ("norm", CNorm),
        ("before_norm", CLinear),
        ("after_norm", CLinear),
    ]


class CDescription(Structure):
    """`sweet_description`."""

    _fields_ = [
        ("embeddings", CEmbeddings),
        ("layers", POINTER(CLayer)),
        ("exits", POINTER(CExit)),
        ("num_layers", c_int32),
        ("num_full_layers", c_int32),
        ("num_exits", c_int32),
        ("num_attention_heads", c_int32),
        ("activation", c_int32),
        ("score_scale", c_float),
        ("hidden", c_int32),
        ("unused", c_int32),
    ]


class CPolicy(Structure):
    """`sweet_policy`."""

    _fields_ = [
        ("temperatures", c_void_p),
        ("thresholds", c_void_p),
        ("num_exits", c_int32),
        ("labels", c_int32),
        ("deepest", c_int32),
        ("learned", c_int32),
    ]


# name of a structure in `csrc/api.h` → the same in ctypes
STRUCTURES: dict[str, type[Structure]] = {
    "sweet_floats": CFloats,
    "sweet_linear": CLinear,
    "sweet_norm": CNorm,
    "sweet_layer": CLayer,
    "sweet_head": CHead,
    "sweet_exit": CExit,
    "sweet_embeddings": CEmbeddings,
    "sweet_description": CDescription,
    "sweet_policy": CPolicy,
}

# function → type of the result, types of the arguments, as in csrc/api.h
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sweet_interface": (c_int32, ()),
    "sweet_size_of": (c_int64, (c_char_p,)),
    "sweet_model_new": (c_void_p, (POINTER(CDescription), c_int32, c_int64)),
    "sweet_model_free": (None, (c_void_p,)),
    "sweet_model_bytes": (c_int64, (c_void_p,)),
    "sweet_workspace_bytes": (c_int64, (c_void_p,)),
    "sweet_embed": (c_int32, (c_void_p, c_int32, c_int64, *(c_void_p,) * 5, c_int64, c_void_p)),
    "sweet_probe": (c_int32, (c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_void_p, c_int64)),
    "sweet_advance": (c_int32, (c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_void_p, c_int64, c_void_p)),
    "sweet_confidence": (c_int32, (c_int32, c_int32, c_void_p, c_float, c_void_p)),
    "sweet_logistic": (c_int32, (c_int32, c_void_p, c_void_p)),
    "sweet_answer": (c_int32, (c_void_p, POINTER(CPolicy), c_int32, c_int64, *(c_void_p,) * 7)),
    "sweet_isa": (c_char_p, ()),
    "sweet_error": (c_char_p, ()),
    "sweet_op_gemm_int32": (c_int32, (c_int32, c_int32, c_int32, c_void_p, c_void_p, c_void_p)),
    "sweet_op_linear": (c_int32, (POINTER(CLinear), c_int32, c_void_p, c_void_p, c_int32)),
    "sweet_op_time": (c_double, (POINTER(CLinear), c_int32, c_int32, c_int32)),
    "sweet_op_peak": (c_double, (c_int32,)),
    "sweet_op_attention": (c_int32, (c_int32, c_void_p, c_int32, c_int32, c_float, c_int32, c_void_p, c_void_p)),
    "sweet_op_activation": (c_int32, (c_int32, c_int32, c_void_p, c_void_p)),
}
