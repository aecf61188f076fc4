"""Choosing and loading the engine's library for this processor, and the C interface of `csrc/api.h` in ctypes."""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.native.cores import default_threads

__all__ = [
    "ISAS",
    "ENVIRONMENT",
    "ACTIVATIONS",
    "CLinear",
    "CNorm",
    "CLayer",
    "CHead",
    "CEmbeddings",
    "CDescription",
    "Library",
    "available",
    "load",
    "default_threads",
]

# Instruction sets, best first.
ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx2", "portable")
# The environment variable that forces one of them.
ENVIRONMENT = "ITREX_SWEET_ISA"

NOT_BUILT, NOT_SUPPORTED = "not built", "not supported by this processor"

# `sweet_activation`
ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "relu": 2, "tanh": 3, "silu": 4}

_DIRECTORY = Path(__file__).resolve().parent / "lib"


# Pointers to numbers are addresses: of NumPy's `array.ctypes.data`, of torch's `tensor.data_ptr()`; `None` is null.
# Whoever fills a structure keeps what it points at alive until the call has returned.


class CLinear(Structure):
    """`sweet_linear`: int8 weights (out, in) with scales (out,), or float32 ones without; `in_` = 0: no such layer.

    `in_bfloat16`: a float layer whose weights and input are rounded to bfloat16.
    """

    _fields_ = [
        ("weight", c_void_p),
        ("weight_scale", c_void_p),
        ("bias", c_void_p),
        ("smoothing", c_void_p),
        ("input_scale", c_float),
        ("input_zero_point", c_int32),
        ("in_", c_int32),
        ("out", c_int32),
        ("in_bfloat16", c_int32),
        ("unused", c_int32),
    ]


class CNorm(Structure):
    """`sweet_norm`: weight and bias (size,) float32."""

    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_float), ("size", c_int32)]


class CLayer(Structure):
    """`sweet_layer`."""

    _fields_ = [
        *((name, CLinear) for name in ("query", "key", "value", "attention_output", "up", "down")),
        *((name, CNorm) for name in ("attention_norm", "output_norm")),
    ]


class CHead(Structure):
    """`sweet_head`; `activation` is one of `ACTIVATIONS`."""

    _fields_ = [("dense", CLinear), ("classifier", CLinear), ("activation", c_int32), ("unused", c_int32)]


class CEmbeddings(Structure):
    """`sweet_embeddings`: tables (number, width) float32."""

    _fields_ = [
        ("words", c_void_p),
        ("positions", c_void_p),
        ("token_types", c_void_p),
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
        ("heads", POINTER(CHead)),
        ("exits", c_void_p),
        ("num_layers", c_int32),
        ("num_exits", c_int32),
        ("num_attention_heads", c_int32),
        ("activation", c_int32),
        ("score_scale", c_float),
        ("hidden", c_int32),
    ]


class CPolicy(Structure):
    """`sweet_policy`."""

    _fields_ = [
        ("temperatures", c_void_p),
        ("thresholds", c_void_p),
        ("labels", c_int32),
        ("deepest", c_int32),
        ("learned", c_int32),
        ("unused", c_int32),
    ]


# function → type of the result, types of the arguments, as in csrc/api.h
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sweet_model_new": (c_void_p, (POINTER(CDescription), c_int32)),
    "sweet_model_free": (None, (c_void_p,)),
    "sweet_model_bytes": (c_int64, (c_void_p,)),
    "sweet_workspace_bytes": (c_int64, (c_void_p,)),
    "sweet_embed": (c_int32, (c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "sweet_probe": (c_int32, (c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_void_p)),
    "sweet_advance": (c_int32, (c_void_p, c_int32, c_int32, c_void_p, c_void_p, c_void_p, c_void_p)),
    "sweet_confidence": (c_int32, (c_int32, c_int32, c_void_p, c_float, c_void_p)),
    "sweet_logistic": (c_int32, (c_int32, c_void_p, c_void_p)),
    "sweet_answer": (c_int32, (c_void_p, POINTER(CPolicy), c_int32, *(c_void_p,) * 7)),
    "sweet_isa": (c_char_p, ()),
    "sweet_error": (c_char_p, ()),
    "sweet_op_gemm_int32": (c_int32, (c_int32, c_int32, c_int32, c_void_p, c_void_p, c_void_p)),
    "sweet_op_linear": (c_int32, (POINTER(CLinear), c_int32, c_void_p, c_void_p, c_int32)),
    "sweet_op_time": (c_double, (POINTER(CLinear), c_int32, c_int32, c_int32)),
    "sweet_op_peak": (c_double, (c_int32,)),
    "sweet_op_attention": (c_int32, (c_int32, c_void_p, c_int32, c_int32, c_float, c_int32, c_void_p, c_void_p)),
    "sweet_op_activation": (c_int32, (c_int32, c_int32, c_void_p, c_void_p)),
}


class Library:
    """The engine built for one instruction set.

    The functions of `csrc/api.h` are its attributes, with types declared: `library.sweet_embed(...)`. They return what
    C returns; `call` turns codes of failure into exceptions. Other threads of Python run while one is called.

    Args:
        isa: one of `ISAS`.
        path: the library's file.

    Raises:
        BackendUnavailable: the file is no library, lacks a function, or was built for another instruction set.
    """

    def __init__(self, isa: str, path: Path):
        self.isa = isa
        self.path = path
        try:
            handle = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(handle, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        except (OSError, AttributeError) as error:
            raise BackendUnavailable(f"{path.name} cannot be loaded: {error}") from error
        built_for = self.sweet_isa().decode()
        if built_for != isa:
            raise BackendUnavailable(f"{path.name} was built for {built_for}.")

    def __repr__(self) -> str:
        return f"Library({self.isa!r}, {str(self.path)!r})"

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function, and checks what it returns.

        Returns:
            Its result: an address, a size or a duration; 0 where it only reports success.

        Raises:
            SweetError: it failed: a negative code or a null pointer; the message is the engine's.
        """
        result = getattr(self, function)(*arguments)
        kind = _FUNCTIONS[function][0]
        if (kind is c_void_p and not result) or (kind in (c_int32, c_int64, c_double) and result < 0):
            raise SweetError(f"{function}: {self.error()}")
        return result

    def error(self) -> str:
        """What went wrong in the last call of this thread that failed."""
        return (self.sweet_error() or b"").decode(errors="replace") or "the engine gave no reason"


def available() -> dict[str, str | None]:
    """Instruction set, best first → why it cannot be used here, or `None` if it can."""
    return {isa: _missing(isa) for isa in ISAS}


def load(isa: str | None = None) -> Library:
    """Loads the engine, once per instruction set.

    Args:
        isa: one of `ISAS`; `None` for the one that the environment variable `ITREX_SWEET_ISA` names, or where that is
            not set or empty, the best that is built and that this processor supports.

    Raises:
        BackendUnavailable: the one named is unknown, not built or not supported here, or none is usable; no other is
            put in its place.
    """
    asked = f"isa={isa!r}"
    if isa is None and os.environ.get(ENVIRONMENT):
        isa = os.environ[ENVIRONMENT]
        asked = f"{ENVIRONMENT}={isa}"
    reasons = available()
    usable = [name for name, reason in reasons.items() if reason is None]
    if isa is None:
        if not usable:
            told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            raise BackendUnavailable(f"The native engine has no instruction set to run on. {told}.")
        return _open(usable[0])
    choice = f"Usable here: {', '.join(usable) or 'none'}."
    if isa not in ISAS:
        raise BackendUnavailable(f"{asked} is unknown; there are {', '.join(ISAS)}. {choice}")
    if reasons[isa] is not None:
        raise BackendUnavailable(f"{asked} is {reasons[isa]}. {choice}")
    return _open(isa)


def _path(name: str) -> Path:
    return _DIRECTORY / f"libsweet_{name}.so"


def _missing(isa: str) -> str | None:
    if not _path(isa).is_file() or not _path("cpu").is_file():
        return NOT_BUILT
    return None if _cpu(_path("cpu")).sweet_cpu_supports(isa.encode()) else NOT_SUPPORTED


@functools.cache
def _cpu(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL)
    except OSError as error:
        raise BackendUnavailable(f"{path.name} cannot be loaded: {error}") from error
    library.sweet_cpu_supports.restype, library.sweet_cpu_supports.argtypes = c_int32, (c_char_p,)
    return library


def _open(isa: str) -> Library:
    return _open_file(isa, _path(isa))


@functools.cache
def _open_file(isa: str, path: Path) -> Library:
    return Library(isa, path)
