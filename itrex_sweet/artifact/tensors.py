"""Reads the tensors of a safetensors file in memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact.stored_tensor import BFLOAT16, StoredTensor
from itrex_sweet.artifact.validation.json_text import parse_object
from itrex_sweet.errors import ArtifactError

_ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": BFLOAT16,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_HEADER_LIMIT = 100_000_000  # bytes, as the safetensors library has it
_MAX_AXES = 8
_METADATA = "__metadata__"


class TensorFile:
    """A safetensors file in memory, validated: every byte of its data belongs to one tensor.

    Args:
        contents: (bytes,) uint8, the whole file.
        path: path of the file, for error messages.

    Raises:
        ArtifactError: it is not a whole safetensors file.
    """

    def __init__(self, contents: np.ndarray, path: Path):
        self.path = path
        header = self._header(contents)
        self.metadata: dict[str, Any] = header.pop(_METADATA, None) or {}
        if not isinstance(self.metadata, dict):
            raise self._damaged(f"{_METADATA} is {type(self.metadata).__name__}")
        self._tensors = header
        self._check_offsets(len(self._data))

    def names(self) -> list[str]:
        """Returns the names of the tensors, in order."""
        return sorted(self._tensors)

    def tensors(self) -> dict[str, StoredTensor]:
        """Returns every tensor by name; they share the memory of the file."""
        return {name: self._tensor(name) for name in self.names()}

    def _tensor(self, name: str) -> StoredTensor:
        described = self._tensors[name]
        dtype = _DTYPES[described["dtype"]]
        held_as = np.uint16 if dtype == BFLOAT16 else dtype
        return StoredTensor(dtype, self._bytes(name).view(held_as).reshape(described["shape"]), self.path)

    def integers(self, name: str) -> np.ndarray:
        """Returns a tensor of 64-bit integers as unsigned integers.

        Raises:
            ArtifactError: the tensor has another type.
        """
        if self._tensors[name]["dtype"] != "I64":
            raise self._damaged(f"{name!r} has dtype {self._tensors[name]['dtype']}, I64 was written")
        return self._bytes(name).view(np.uint64)

    def _bytes(self, name: str) -> np.ndarray:
        described = self._tensors[name]
        begin, end = described["data_offsets"]
        data = self._data[begin:end]
        # A header of odd length is within the format, but no processor computes on such tensors in place.
        return data if data.ctypes.data % _ITEM_BYTES[described["dtype"]] == 0 else data.copy()

    def _header(self, contents: np.ndarray) -> dict[str, Any]:
        if len(contents) < 8:
            raise self._damaged(f"it has {len(contents)} bytes")
        length = int.from_bytes(contents[:8].tobytes(), "little")
        if length > min(len(contents) - 8, _HEADER_LIMIT):
            raise self._damaged(f"its header would have {length} bytes")
        try:
            header = parse_object(contents[8 : 8 + length].tobytes(), Path("its header"), unique_names=True)
        except ArtifactError as error:
            raise self._damaged(str(error)) from error
        self._data = contents[8 + length :]
        return header

    def _check_offsets(self, size: int) -> None:
        places = []
        for name, described in self._tensors.items():
            if not isinstance(described, dict):
                raise self._damaged(f"{name!r} is described by {type(described).__name__}")
            dtype, shape, offsets = (described.get(key) for key in ("dtype", "shape", "data_offsets"))
            if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
                raise self._damaged(f"{name!r} has dtype {dtype!r}; a model has {', '.join(_ITEM_BYTES)}")
            if (
                not _are_valid_sizes(shape)
                or len(shape) > _MAX_AXES
                or math.prod(size or 1 for size in shape) >= 1 << 62
            ):
                raise self._damaged(f"{name!r} has shape {shape!r}")
            if not _are_valid_sizes(offsets) or len(offsets) != 2:
                raise self._damaged(f"{name!r} has data_offsets {offsets!r}")
            if offsets[1] - offsets[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
                raise self._damaged(f"{name!r} of shape {shape} in {dtype} does not have the bytes {offsets}")
            places.append((*offsets, name))
        end = 0
        for begin, next_, name in sorted(places):
            if begin != end:
                raise self._damaged(f"{name!r} begins at byte {begin}, and the tensor before it ends at {end}")
            end = next_
        if end != size:
            raise self._damaged(f"its tensors have {end} bytes, and {size} are there")

    def _damaged(self, reason: str) -> ArtifactError:
        return ArtifactError(f"{self.path} cannot be read as safetensors ({reason}); copy or write it again.")


def _are_valid_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)
