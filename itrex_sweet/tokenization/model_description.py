"""Describes the model of a tokenizer to the native library: what every kind of model shares."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.tokenization.native_library import CStrings


class UnsupportedTokenizer(Exception):
    """A tokenizer of another kind than the native library reads; the message gives the reason."""


@dataclass(frozen=True)
class ModelDescription:
    """A model with its normalizer and pre-tokenizer.

    Args:
        name: of the kind of model.
        kind: of `sweet_model_kind`.
        structure: of that kind.
        vocabulary: pieces and their ids.
    """

    name: str
    kind: int
    structure: ctypes.Structure
    vocabulary: Mapping[str, int]


class Arrays:
    """Makes the arrays that a description points to, and keeps them."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def integers(self, values: Any) -> int:
        """Returns the address of an array of int32."""
        self._kept.append(np.array(values, dtype=np.int32))
        return self._kept[-1].ctypes.data

    def numbers(self, values: Any) -> int:
        """Returns the address of an array of float64."""
        self._kept.append(np.array(values, dtype=np.float64))
        return self._kept[-1].ctypes.data

    def bytes(self, value: bytes) -> tuple[int, int]:
        """Returns the address of bytes, and their number."""
        self._kept.append(np.frombuffer(value, dtype=np.uint8))
        return self._kept[-1].ctypes.data, len(value)

    def strings(self, values: Collection[str]) -> CStrings:
        """Returns strings for the library.

        Raises:
            UnsupportedTokenizer: a string holds a zero byte, which ends a string there.
        """
        joined = ("\0".join(values) + "\0").encode() if values else b""
        if joined.count(b"\0") != len(values):
            raise UnsupportedTokenizer("a token holds a zero byte")
        self._kept.append(joined)
        return CStrings(joined, len(joined), len(values))

    def structures(self, kind: type[ctypes.Structure], values: Sequence[ctypes.Structure]) -> int:
        """Returns the address of an array of structures."""
        self._kept.append((kind * len(values))(*values))
        return ctypes.addressof(self._kept[-1])

    def pointer(self, structure: ctypes.Structure) -> int:
        """Returns the address of a structure."""
        self._kept.append(structure)
        return ctypes.addressof(structure)
