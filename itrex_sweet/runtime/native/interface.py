"""ctypes declarations of the C interface in `csrc/api.h`."""

from __future__ import annotations

from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from typing import Any

# `kSweetInterface`: the version that a library must have
INTERFACE = 10

# `sweet_result`: the call succeeded on fewer threads than wanted
FEWER_THREADS = 1

# `SWEET_NUM_COUNTS`: numbers that `sweet_threads_count` writes
NUM_COUNTS = 4

# `SWEET_READ_PADDING`: floats after the last row of states that kernels may read
READ_PADDING = 16

# `sweet_activation`
ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "relu": 2, "tanh": 3, "silu": 4}

# `sweet_pooling`
POOLINGS = {"first": 0, "mean": 1, "late": 2}

# Pointers to arrays are integer addresses (`array.ctypes.data`); `None` is null. The caller keeps the arrays alive
# until the call has returned.


class CFloats(Structure):
    """`sweet_floats`: a float32 array of `size` elements; null with size 0 if absent."""

    _fields_ = [("values", c_void_p), ("size", c_int64)]


class CLinear(Structure):
    """`sweet_linear`: int8 weights (out, in) with scales (out,), or float32 weights; all zero if absent.

    `is_bfloat16`: weights and input of a float layer are rounded to bfloat16. `is_static`: static input quantization;
    otherwise each row gets its own scale and zero point.
    """

    _fields_ = [
        ("weight", c_void_p),
        ("weight_size", c_int64),
        *((name, CFloats) for name in ("weight_scale", "bias", "smoothing")),
        ("input_scale", c_float),
        ("input_zero_point", c_int32),
        ("in_", c_int32),
        ("out", c_int32),
        ("is_bfloat16", c_int32),
        ("is_static", c_int32),
    ]


class CNorm(Structure):
    """`sweet_norm`: weight and optional bias (size,) float32; all zero if absent."""

    _fields_ = [
        ("weight", CFloats),
        ("bias", CFloats),
        ("eps", c_float),
        ("size", c_int32),
        ("is_rms", c_int32),
        ("unused", c_int32),
    ]


class CRotary(Structure):
    """`sweet_rotary`: inverse frequencies (head size / 2,) float32; all zero if absent."""

    _fields_ = [("inverse_frequencies", CFloats), ("scaling", c_float), ("unused", c_int32)]


class CLayer(Structure):
    """`sweet_layer`; the parts after the norms are optional."""

    _fields_ = [
        *((name, CLinear) for name in ("query", "key", "value", "attention_output", "up", "down")),
        *((name, CNorm) for name in ("attention_norm", "output_norm")),
        ("gate", CLinear),
        ("rotary", CRotary),
        *((name, CFloats) for name in ("relative_key", "relative_query")),
        ("convolution", CLinear),
        ("convolution_norm", CNorm),
        ("convolution_activation", c_int32),
        ("window", c_int32),
    ]


class CHead(Structure):
    """`sweet_head`; `activation` is one of `ACTIVATIONS`, `pooling` one of `POOLINGS`."""

    _fields_ = [
        ("dense", CLinear),
        ("classifier", CLinear),
        ("norm", CNorm),
        ("activation", c_int32),
        ("pooling", c_int32),
    ]


class CExit(Structure):
    """`sweet_exit`."""

    _fields_ = [("head", CHead), ("norm", CNorm), ("full_layers", c_int32), ("layer", c_int32)]


class CEmbeddings(Structure):
    """`sweet_embeddings`: tables (number, width) float32, that of the words also int8 with scales (number,)."""

    _fields_ = [
        ("words", c_void_p),
        ("words_size", c_int64),
        *((name, CFloats) for name in ("word_scale", "positions", "token_types")),
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
        ("num_relative_buckets", c_int32),
        ("relative_index", c_void_p),
        ("relative_index_size", c_int64),
        ("norm_first", c_int32),
        ("max_length", c_int32),
        ("position_bias", CFloats),
    ]


class CPolicy(Structure):
    """`sweet_policy`."""

    _fields_ = [
        ("temperatures", c_void_p),
        ("thresholds", c_void_p),
        ("num_exits", c_int32),
        ("labels", c_int32),
        ("max_exit_index", c_int32),
        ("learned", c_int32),
        ("label_offsets", c_void_p),
        ("target_label", c_int32),
        ("unused", c_int32),
    ]


# name in `csrc/api.h` → ctypes structure
STRUCTURES: dict[str, type[Structure]] = {
    "sweet_floats": CFloats,
    "sweet_linear": CLinear,
    "sweet_norm": CNorm,
    "sweet_rotary": CRotary,
    "sweet_layer": CLayer,
    "sweet_head": CHead,
    "sweet_exit": CExit,
    "sweet_embeddings": CEmbeddings,
    "sweet_description": CDescription,
    "sweet_policy": CPolicy,
}

# function in `csrc/api.h` → (result type, argument types)
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sweet_interface": (c_int32, ()),
    "sweet_size_of": (c_int64, (c_char_p,)),
    "sweet_model_new": (c_void_p, (POINTER(CDescription),)),
    "sweet_model_free": (None, (c_void_p,)),
    "sweet_model_bytes": (c_int64, (c_void_p,)),
    "sweet_threads_new": (c_void_p, (c_int32,)),
    "sweet_threads_free": (None, (c_void_p,)),
    "sweet_threads_count": (c_int32, (c_void_p, c_void_p)),
    "sweet_threads_wake": (c_int32, (c_void_p,)),
    "sweet_threads_yield": (c_int32, (c_void_p, c_int32)),
    "sweet_context_new": (c_void_p, (c_void_p, c_void_p, c_int64)),
    "sweet_context_free": (None, (c_void_p,)),
    "sweet_context_bytes": (c_int64, (c_void_p,)),
    "sweet_embed": (c_int32, (c_void_p, c_int32, c_int64, *(c_void_p,) * 5, c_int64, c_void_p)),
    "sweet_probe": (c_int32, (c_void_p, c_int32, c_int32, *(c_void_p,) * 4, c_int64)),
    "sweet_advance": (c_int32, (c_void_p, c_int32, c_int32, *(c_void_p,) * 4, c_int64, c_void_p)),
    "sweet_confidence": (c_int32, (c_int32, c_int32, c_void_p, c_float, c_void_p, c_int32, c_void_p)),
    "sweet_logistic": (c_int32, (c_int32, c_void_p, c_void_p)),
    "sweet_best_label": (c_int32, (c_int32, c_int32, *(c_void_p,) * 4)),
    "sweet_probabilities": (c_int32, (c_int32, c_int32, *(c_void_p,) * 3)),
    "sweet_answer": (c_int32, (c_void_p, c_void_p, c_int32, c_int64, *(c_void_p,) * 9)),
    "sweet_isa": (c_char_p, ()),
    "sweet_error": (c_char_p, ()),
    "sweet_op_gemm_int32": (c_int32, (c_int32, c_int32, c_int32, c_void_p, c_void_p, c_void_p)),
    "sweet_op_linear": (c_int32, (POINTER(CLinear), c_int32, c_void_p, c_void_p, c_int32)),
    "sweet_op_time": (c_double, (POINTER(CLinear), c_int32, c_int32, c_int32)),
    "sweet_op_peak": (c_double, (c_int32,)),
    "sweet_op_attention": (
        c_int32,
        (c_int32, c_void_p, c_int32, c_int32, c_float, c_int32, c_int32, c_void_p, c_void_p),
    ),
    "sweet_op_activation": (c_int32, (c_int32, c_int32, c_void_p, c_void_p)),
}
