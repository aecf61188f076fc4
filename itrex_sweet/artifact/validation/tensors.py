"""Validates weights: shapes against the config, all numbers finite and in range."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NoReturn

import numpy as np

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.artifact.stored_tensor import BFLOAT16, StoredTensor, float32_of
from itrex_sweet.artifact.validation.shapes import (
    OF_LINEAR,
    ExpectedTensor,
    expected_tensors,
    unexpected_private_layers,
    unexpected_tables,
)
from itrex_sweet.artifact.validation.sinusoids import check_sinusoids
from itrex_sweet.artifact.validation.values import ADVICE
from itrex_sweet.errors import ArtifactError

# float64 is refused: it would be rounded, and values beyond float32 would become infinite.
FLOATS = ("float32", "float16", BFLOAT16)
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
QUANTIZED = "int8"
# Weights of trained models are far below; a flipped bit of an exponent is far above, and sums of such numbers overflow
# or not as each backend orders them.
MAX_MAGNITUDE = 1e9
MIN_SCALE = float(np.finfo(np.float32).tiny)  # its inverse is finite
_CHUNK = 1 << 20  # numbers looked at together, which bounds the memory of a check


def check_tensors(
    tensors: Mapping[str, StoredTensor],
    model: Architecture,
    exits: Sequence[int],
    *,
    shares_pooler: bool,
    private_exits: Collection[int],
    learns_to_exit: bool,
    may_be_quantized: bool,
    where: str,
) -> None:
    """Checks the tensors of one model.

    Args:
        tensors: by name; tensors that the model does not have are not checked.
        exits: counts of layers.
        shares_pooler, learns_to_exit: kind of the exit heads.
        private_exits: exits with a copy of their last layer.
        may_be_quantized: whether linear layers of the encoder and word embeddings may be in INT8.
        where: path of the folder, for errors about missing tensors.

    Raises:
        ArtifactError: a tensor is missing or contradicts the config, has another shape or type, or holds numbers that
            are not finite or out of range.
    """
    shared = [exit_ for exit_ in exits if exit_ not in private_exits]
    for name in (*unexpected_tables(model), *unexpected_private_layers(model, shared, tensors)):
        if name in tensors:
            raise ArtifactError(f"{tensors[name].file} holds {name!r}, which the config excludes. {ADVICE}")
    for expected in expected_tensors(model, exits, shares_pooler, private_exits, learns_to_exit):
        stored = tensors.get(expected.name)
        if stored is None:
            if expected.optional:
                continue
            raise ArtifactError(f"{where}: the weights lack {expected.name!r}. {ADVICE}")
        if expected.forbidden:
            raise ArtifactError(f"{stored.file} holds {expected.name!r}, which the config says is not there. {ADVICE}")
        _check_shape(expected.name, stored, expected.shape)
        if expected.companions:
            _check_quantizable(expected, stored, tensors, may_be_quantized)
        else:
            check_numbers(expected.name, stored)
    check_sinusoids(tensors, model)


def check_numbers(name: str, stored: StoredTensor, minimum: float | None = None) -> None:
    """Checks a tensor of floats: all numbers finite, of a magnitude up to `MAX_MAGNITUDE`, and none below `minimum`.

    Raises:
        ArtifactError: another type, or such a number.
    """
    if stored.dtype not in FLOATS:
        _refuse(name, stored, f"has the type {stored.dtype}", f"one of {', '.join(FLOATS)} is needed")
    flat = stored.values.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        numbers = float32_of(flat[start : start + _CHUNK], stored.dtype)
        lower = -MAX_MAGNITUDE if minimum is None else minimum
        if numbers.min() >= lower and numbers.max() <= MAX_MAGNITUDE:  # false for NaN
            continue
        magnitudes = np.abs(numbers) if minimum is None else numbers
        good = (magnitudes <= MAX_MAGNITUDE) & (magnitudes >= (0.0 if minimum is None else minimum))  # false of NaN
        if not good.all():
            place = int(np.argmin(good))
            at = tuple(map(int, np.unravel_index(start + place, stored.shape)))
            expected = f"finite numbers up to {MAX_MAGNITUDE:g} are needed" + ("" if minimum is None else ", above 0")
            _refuse(name, stored, f"holds {numbers[place]} at {list(at)}" if at else f"is {numbers[place]}", expected)


def _check_shape(name: str, stored: StoredTensor, shape: tuple[int, ...]) -> None:
    if stored.shape != shape:
        _refuse(name, stored, f"has shape {stored.shape}", f"the config needs {shape}")


def _check_quantizable(
    expected: ExpectedTensor, stored: StoredTensor, tensors: Mapping[str, StoredTensor], may_be_quantized: bool
) -> None:
    """Checks a linear layer or a table: floats, or 8-bit integers with their quantization parameters."""
    path = expected.name.removesuffix(".weight")
    beside = {name: tensors[f"{path}.{name}"] for name in OF_LINEAR if f"{path}.{name}" in tensors}
    if stored.dtype != QUANTIZED:
        check_numbers(expected.name, stored)
        if beside:
            name = next(iter(beside))
            _refuse(f"{path}.{name}", beside[name], "is there", f"{expected.name!r} is not quantized")
        return
    if not may_be_quantized:
        _refuse(expected.name, stored, f"has the type {stored.dtype}", "a float32 artifact holds no integers")
    for name in beside.keys() - set(expected.companions):
        _refuse(f"{path}.{name}", beside[name], "is there", "a table of embeddings has no input range")
    shapes = {"weight_scale": expected.shape[:1], "input_smoothing": expected.shape[1:]}
    for name, part in beside.items():
        _check_shape(f"{path}.{name}", part, shapes.get(name, ()))
        if name == "input_zero_point":
            _check_zero_point(f"{path}.{name}", part)
        else:
            check_numbers(f"{path}.{name}", part, MIN_SCALE)
    for name in ("weight_scale", *(("input_scale", "input_zero_point") if "input_scale" in beside else ())):
        if name not in beside:
            raise ArtifactError(f"{stored.file}: the weights lack {f'{path}.{name}'!r}. {ADVICE}")
    if "input_zero_point" in beside and "input_scale" not in beside:
        raise ArtifactError(f"{stored.file}: the weights lack {f'{path}.input_scale'!r}. {ADVICE}")


def _check_zero_point(name: str, stored: StoredTensor) -> None:
    if stored.dtype not in INTEGERS:
        _refuse(name, stored, f"has the type {stored.dtype}", "an integer type is needed")
    if not 0 <= int(stored.values) <= 255:
        _refuse(name, stored, f"is {int(stored.values)}", "a whole number from 0 to 255 is needed")


def _refuse(name: str, stored: StoredTensor, found: str, expected: str) -> NoReturn:
    raise ArtifactError(f"{stored.file}: {name!r} {found}, {expected}. {ADVICE}")
