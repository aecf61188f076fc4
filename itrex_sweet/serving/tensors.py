"""Tensors of the Open Inference Protocol: in JSON, and in the binary extension."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.failures import JSON, VALIDATION

BYTES, FP32, INT64 = "BYTES", "FP32", "INT64"
_NUMPY = {FP32: np.dtype("<f4"), INT64: np.dtype("<i8")}

Strings = list[str]


def split_body(body: bytes, header_length: bytes | None) -> tuple[Any, memoryview]:
    """Returns the JSON and the binary data after it.

    Args:
        header_length: value of the header `Inference-Header-Content-Length`, the bytes of the JSON; `None` for all.

    Raises:
        RequestError: no JSON, or a wrong length.
    """
    if header_length is not None:
        if not header_length.isdigit() or len(header_length) > 18 or int(header_length) > len(body):
            raise RequestError(JSON, "Inference-Header-Content-Length: the number of bytes of the JSON in the body.")
        length = int(header_length)
    else:
        length = len(body)
    view = memoryview(body)
    try:
        return orjson.loads(view[:length]), view[length:]
    except orjson.JSONDecodeError as error:
        raise RequestError(JSON, f"the body is no JSON: {error}.") from None


def strings_of(tensor: dict[str, Any], binary: memoryview) -> tuple[Strings, tuple[int, ...], memoryview]:
    """Returns the strings of an input tensor, its shape, and the binary data of the tensors after it.

    Raises:
        RequestError: another datatype, or data that do not fit the shape.
    """
    name, shape = tensor.get("name"), _shape(tensor)
    if tensor.get("datatype") != BYTES:
        raise RequestError(VALIDATION, f"input {_shown(name)}: its datatype must be BYTES, for texts in UTF-8.")
    size = parameters_of(tensor, f"input {_shown(name)}").get("binary_data_size")
    if size is None:
        values = _flat(tensor.get("data"), len(shape) + 1)
    else:
        _check_size(size, tensor, len(binary))
        values, binary = _unpacked(binary[:size], name), binary[size:]
    if len(values) != math.prod(shape):
        raise RequestError(
            VALIDATION, f"input {_shown(name)}: {len(values)} values do not fit the shape {list(shape)}."
        )
    if not all(isinstance(value, str) for value in values):
        raise RequestError(VALIDATION, f"input {_shown(name)}: its data must be strings.")
    return values, shape, binary


def parameters_of(holder: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the parameters of a request or tensor.

    Args:
        name: of the holder, for messages.

    Raises:
        RequestError: no object, or parameters for shared memory, where a client would wait for its outputs in vain.
    """
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise RequestError(VALIDATION, f"{name}: parameters is an object.")
    if "shared_memory_region" in parameters:
        raise RequestError(VALIDATION, f"{name}: shared memory is not supported; tensors are sent in the body.")
    return parameters


def _check_size(size: Any, tensor: dict[str, Any], available: int) -> None:
    """Raises RequestError for a `binary_data_size` that does not fit the tensor or the binary data left."""
    name = _shown(tensor.get("name"))
    if tensor.get("data") is not None:
        raise RequestError(VALIDATION, f"input {name}: data and binary_data_size exclude each other.")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise RequestError(VALIDATION, f"input {name}: binary_data_size is a number of bytes, not {size!r:.80}.")
    if size > available:
        raise RequestError(
            VALIDATION, f"input {name}: binary_data_size is {size}, and {available} bytes are left in the body."
        )


def _shape(tensor: dict[str, Any]) -> tuple[int, ...]:
    shape = tensor.get("shape")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 2
        or not all(isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**31 for size in shape)
    ):
        raise RequestError(VALIDATION, f"input {_shown(tensor.get('name'))}: its shape must be [texts] or [texts, 1].")
    return tuple(shape)


def _flat(data: Any, depth: int) -> list[Any]:
    """Returns the elements of nested lists, in row-major order."""
    if not isinstance(data, list):
        raise RequestError(VALIDATION, "data: a list of strings.")
    if depth > 1 and any(isinstance(part, list) for part in data):
        return [value for part in data for value in _flat(part, depth - 1)]
    return data


def _unpacked(data: memoryview, name: Any) -> Strings:
    """Reads strings, each after its length in 4 bytes."""
    values, place = [], 0
    while place < len(data):
        end = place + 4
        if end > len(data) or (stop := end + struct.unpack_from("<I", data, place)[0]) > len(data):
            raise RequestError(VALIDATION, f"input {_shown(name)}: its binary data end within an element.")
        try:
            values.append(str(data[end:stop], "utf-8"))
        except UnicodeDecodeError as error:
            raise RequestError(
                VALIDATION, f"input {_shown(name)}: element {len(values)} is no UTF-8: {error}."
            ) from None
        place = stop
    return values


def output(name: str, datatype: str, values: np.ndarray | Strings, binary: bool) -> tuple[dict[str, Any], bytes]:
    """Returns an output tensor for the JSON, and its binary data, which are empty unless they were asked for.

    Args:
        values: (texts, ...) numbers, or a string per element of `shape`.
    """
    strings = isinstance(values, list)
    tensor = {"name": name, "datatype": datatype, "shape": [len(values)] if strings else list(values.shape)}
    if not binary:
        tensor["data"] = values if strings else values.ravel().tolist()
        return tensor, b""
    data = packed(value.encode() for value in values) if strings else values.astype(_NUMPY[datatype]).tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    return tensor, data


def packed(values: Iterable[bytes]) -> bytes:
    """Joins strings in UTF-8, each after its length in 4 bytes."""
    return b"".join(part for value in values for part in (struct.pack("<I", len(value)), value))


def _shown(name: Any) -> str:
    return repr(name)[:80]
