"""Tokenization in C++: texts straight to a packed batch."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization import native_library
from itrex_sweet.tokenization.description import description_of, template_of
from itrex_sweet.tokenization.inputs import Text
from itrex_sweet.tokenization.model_description import Arrays, UnsupportedTokenizer

# int64 values of an output buffer that is kept; greater outputs get one of their own.
_BUFFER_SIZE = 16384


class NativeReader:
    """Encodes texts to the same token ids as a `tokenizers.Tokenizer`.

    Thread-safe, and usable in a forked child: the C++ object is immutable, and a call owns its output buffer.

    Args:
        backend: of a kind that `description_of` knows, with a template of special tokens; neither truncates nor pads.
        model_state: returns its model as the library writes it, where that is known already.

    Attributes:
        name: the kind of tokenizer.
        special_tokens: number of special tokens of a text, and of a pair.
        most_special_tokens: the greater of these.
        max_id: largest token id that it can give.
        max_type: largest token type.

    Raises:
        UnsupportedTokenizer: another kind of tokenizer.
        LibraryUnavailable: the library cannot be loaded.
    """

    def __init__(self, backend: Any, model_state: Callable[[], dict[str, Any]] | None = None):
        self._handle: int | None = None
        self._library = library = native_library.load()
        arrays = Arrays()
        description, kind, largest = description_of(backend, model_state, arrays)
        self._handle = library.new(ctypes.byref(description))
        if not self._handle:
            raise UnsupportedTokenizer("the native tokenizer refuses its vocabulary, added tokens or template")
        self.name = f"native {kind}"
        single, pair = (template_of(backend, is_pair) for is_pair in (False, True))
        self.special_tokens = tuple(
            sum(kind == native_library.SPECIAL_TOKEN for kind, _, _ in row) for row in (single, pair)
        )
        self.most_special_tokens = max(self.special_tokens)
        self.max_id = largest
        self.max_type = max(kind for _, _, kind in (*single, *pair))
        self._buffers: list[tuple[np.ndarray, int]] = []

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.free(self._handle)

    def pack(
        self,
        texts: Sequence[Text],
        limit: int | None = None,
        from_left: bool = False,
        padding_idx: int | None = None,
        allow_empty: bool = False,
    ) -> tuple[TokenBatch, np.ndarray, int] | None:
        """Encodes texts, special tokens included.

        Args:
            texts: strings, or tuples of two strings.
            limit: maximum tokens per row; longer rows are cut as by `truncation="longest_first"`.
            from_left: cut long rows at their start.
            padding_idx: see `TokenBatch`.
            allow_empty: also encode texts without tokens of their own, such as blank ones.

        Returns:
            the rows, their lengths before they were cut, (rows,) int64, and the number of rows that were cut; `None` if
            there is a text that another tokenizer must encode, an element of another type, or half of a surrogate pair.
        """
        rows = len(texts)
        characters = address = is_pair = None
        try:
            if rows == 1 and isinstance(texts[0], str):
                text = str.encode(texts[0])
            else:
                parts, is_pair = _parts(texts)
                text = "".join(parts).encode()
                characters = array("q", map(len, parts)) or array("q", [0])
                address = characters.buffer_info()[0]
        except (TypeError, UnicodeEncodeError):
            return None
        size = len(text)
        tokens = size + rows * self.most_special_tokens
        if limit is not None:
            tokens = min(tokens, rows * max(limit, self.most_special_tokens))
        capacity = 3 * tokens + 2 * rows + 2
        is_small = capacity <= _BUFFER_SIZE
        if is_small:
            try:
                buffer, output = self._buffers.pop()
            except IndexError:
                buffer = np.empty(_BUFFER_SIZE, np.int64)
                output = buffer.ctypes.data
        else:
            buffer = np.empty(capacity, np.int64)
            output = buffer.ctypes.data
        call = self._library.encode_with_gil if size <= native_library.BYTES_WITH_GIL else self._library.encode
        options = (native_library.FROM_LEFT if from_left else 0) | (native_library.ALLOW_EMPTY if allow_empty else 0)
        padding = -1 if padding_idx is None else padding_idx
        arguments = (self._handle, text, size, address, is_pair, rows, limit or 0, options, padding)
        count = call(*arguments, output, _BUFFER_SIZE if is_small else capacity)
        if count == native_library.SMALL_OUTPUT:  # the normal form of a text has many more characters than the text
            capacity = int(buffer[0])
            if is_small:
                self._buffers.append((buffer, output))
            buffer, is_small = np.empty(capacity, np.int64), False
            count = call(*arguments, buffer.ctypes.data, capacity)
        if count < 0:
            if is_small:
                self._buffers.append((buffer, output))
            return None
        lengths = count + rows + 1
        end = lengths + rows + 1
        facts = int(buffer[end - 1])
        has_types, has_positions = facts & native_library.HAS_TYPES, facts & native_library.HAS_POSITIONS
        if is_small:
            values = buffer[: end + 2 * count if facts & 3 else end].copy()
            self._buffers.append((buffer, output))
        else:
            values = buffer
        types = positions = None
        if has_types:
            types, end = values[end : end + count], end + count
        if has_positions:
            positions = values[end : end + count]
        batch = TokenBatch(values[:count], types, positions, values[count:lengths])
        return batch, values[lengths : lengths + rows], facts >> 2

    def borders(self) -> list[int]:
        """Returns the code points at the borders of the Unicode tables."""
        codes = (ctypes.c_uint32 * 65536)()
        return list(codes[: self._library.borders(self._handle, codes, len(codes))])

    def normalize(self, text: str) -> str | None:
        """Returns the normal form of a text; `None` if another tokenizer must encode it."""
        data = text.encode()
        form = ctypes.create_string_buffer(4 * len(data) + 16)
        size = self._library.normalize(self._handle, data, len(data), form, len(form))
        return None if size < 0 else form.raw[:size].decode()

    def words(self, text: str) -> list[str] | None:
        """Splits a normalized text that begins with a space into words; `None` if this takes the model."""
        data = text.encode()
        ends = (ctypes.c_int64 * max(1, len(data)))()
        count = self._library.words(self._handle, data, len(data), ends, len(ends))
        if count < 0:
            return None
        return [data[start:end].decode() for start, end in pairwise([0, *ends[:count]])]


def _parts(texts: Sequence[Any]) -> tuple[Sequence[str], bytes | None]:
    """Returns the texts of all rows in one sequence, and for each row whether it is a pair.

    Raises:
        TypeError: an element is neither a string nor a tuple of two.
    """
    pairs = [isinstance(text, tuple) for text in texts]
    if not any(pairs):
        return texts, None
    parts: list[str] = []
    for text, is_pair in zip(texts, pairs, strict=True):
        if not is_pair:
            parts.append(text)
        elif len(text) == 2:
            parts += text
        else:
            raise TypeError
    return parts, bytes(pairs)
