"""WordPiece in C++: texts straight to a packed batch."""

from __future__ import annotations

import ctypes
import json
from array import array
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization import native_library
from itrex_sweet.tokenization.inputs import Text
from itrex_sweet.tokenization.native_library import CStrings, CWordPiece

# int64 values of an output buffer that is kept; greater outputs get one of their own.
_BUFFER_SIZE = 16384
_MAX_PIECE_CHARACTERS, _MAX_TOKEN_ID, _MAX_WORD_CHARACTERS = 63, (1 << 24) - 1, 1000


class UnsupportedTokenizer(Exception):
    """A tokenizer of another kind than this one reads; the message gives the reason."""


class WordPieceReader:
    """Encodes texts with BERT's WordPiece, to the same token ids as a `tokenizers.Tokenizer`.

    Thread-safe, and usable in a forked child: the C++ object is immutable, and a call owns its output buffer.

    Args:
        backend: with a `BertNormalizer`, a `BertPreTokenizer`, a WordPiece model and a template of special tokens;
            neither truncates nor pads.

    Attributes:
        special_tokens: number of special tokens of a text, and of a pair.
        max_id: largest token id that it can give.
        max_type: largest token type.

    Raises:
        UnsupportedTokenizer: another kind of tokenizer.
        LibraryUnavailable: the library cannot be loaded.
    """

    name = "native WordPiece"

    def __init__(self, backend: Any):
        self._handle: int | None = None
        self._library = library = native_library.load()
        description, kept, largest = _description(backend)
        self._handle = library.new(ctypes.byref(description))
        del kept
        if not self._handle:
            raise UnsupportedTokenizer("the native tokenizer refuses its vocabulary, added tokens or template")
        single, pair = (_template(backend, is_pair) for is_pair in (False, True))
        self.special_tokens = tuple(
            sum(kind == native_library.SPECIAL_TOKEN for kind, _, _ in row) for row in (single, pair)
        )
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
        tokens = size + rows * max(self.special_tokens)
        if limit is not None:
            tokens = min(tokens, rows * max(limit, *self.special_tokens))
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
        count = call(
            self._handle,
            text,
            size,
            address,
            is_pair,
            rows,
            limit or 0,
            options,
            -1 if padding_idx is None else padding_idx,
            output,
            capacity,
        )
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


# ---------------------------------------------------------------------------------------------------- description


def _state(part: Any) -> dict[str, Any]:
    """Returns a part of a tokenizer as the library writes it; empty if there is none."""
    return {} if part is None else json.loads(part.__getstate__())


def _description(backend: Any) -> tuple[CWordPiece, list[Any], int]:
    """Returns the description of a tokenizer for the library, the arrays that it points to, and the largest id."""
    if (kind := type(backend.model).__name__) != "WordPiece":
        raise UnsupportedTokenizer(f"its model is {kind}, not WordPiece")
    normalizer = _state(backend.normalizer)
    if normalizer.get("type") != "BertNormalizer" or not normalizer.get("clean_text"):
        raise UnsupportedTokenizer("its normalizer is not a BertNormalizer with clean_text")
    if _state(backend.pre_tokenizer) != {"type": "BertPreTokenizer"}:
        raise UnsupportedTokenizer("its pre-tokenizer is not BertPreTokenizer")
    model = _state(backend.model)  # five times as fast as `get_vocab`
    vocabulary, unknown, longest = model["vocab"], model["unk_token"], model["max_input_chars_per_word"]
    if not 1 <= longest <= _MAX_WORD_CHARACTERS:
        raise UnsupportedTokenizer(f"max_input_chars_per_word is {longest}")
    if unknown not in vocabulary:
        raise UnsupportedTokenizer(f"its vocabulary has no unknown token {unknown!r}")
    kept: list[Any] = []

    def integers(values: Any) -> int:
        kept.append(np.array(values, dtype=np.int32))
        return kept[-1].ctypes.data

    def strings(values: Collection[str]) -> CStrings:
        joined = ("\0".join(values) + "\0").encode() if values else b""
        if joined.count(b"\0") != len(values):
            raise UnsupportedTokenizer("a token holds a zero byte")
        kept.append(joined)
        return CStrings(joined, len(joined), len(values))

    ids = list(vocabulary.values())
    if max(map(len, vocabulary)) > _MAX_PIECE_CHARACTERS or max(ids) > _MAX_TOKEN_ID:
        raise UnsupportedTokenizer(
            f"a piece has more than {_MAX_PIECE_CHARACTERS} characters, or an id above {_MAX_TOKEN_ID}"
        )
    single, pair = (_template(backend, is_pair) for is_pair in (False, True))
    added = backend.get_added_tokens_decoder()
    strip = normalizer.get("strip_accents")
    description = CWordPiece(
        pieces=strings(vocabulary),
        ids=integers(ids),
        prefix=strings([model["continuing_subword_prefix"]]),
        added=strings([token.content for token in added.values()]),
        added_ids=integers(list(added)),
        added_flags=integers([_flags(token, bool(backend.encode_special_tokens)) for token in added.values()]),
        single=integers(single),
        pair=integers(pair),
        single_items=len(single),
        pair_items=len(pair),
        unknown_id=vocabulary[unknown],
        max_word_characters=longest,
        spaced_ideographs=bool(normalizer["handle_chinese_chars"]),
        strip_accents=bool(normalizer["lowercase"] if strip is None else strip),
        lowercase=bool(normalizer["lowercase"]),
        unused=0,
    )
    special = [token for kind, token, _ in (*single, *pair) if kind == native_library.SPECIAL_TOKEN]
    return description, kept, max(*ids, *added, *special)


def _flags(token: Any, encode_special_tokens: bool) -> int:
    flags = native_library.NORMALIZED if token.normalized else 0
    if encode_special_tokens and token.special:
        flags |= native_library.IS_TEXT
    if token.single_word or token.lstrip or token.rstrip:
        flags |= native_library.UNSUPPORTED
    return flags


def _template(backend: Any, is_pair: bool) -> list[tuple[int, int, int]]:
    """Returns the special tokens and texts of a row in order: kind, token id and token type.

    Raises:
        UnsupportedTokenizer: a post-processor that makes other rows.
    """
    state = _state(backend.post_processor)
    first, second = (native_library.FIRST_TEXT, 0, 0), (native_library.SECOND_TEXT, 0, 1)
    if not state:
        return [first, second] if is_pair else [first]
    if state["type"] == "BertProcessing":
        cls, sep = ((native_library.SPECIAL_TOKEN, state[name][1], 0) for name in ("cls", "sep"))
        row = [cls, first, sep]
        return [*row, second, (*sep[:2], 1)] if is_pair else row
    if state["type"] != "TemplateProcessing":
        raise UnsupportedTokenizer(f"its post-processor is {state['type']}")
    row = []
    for item in state["pair" if is_pair else "single"]:
        if "Sequence" in item:
            kind = native_library.FIRST_TEXT if item["Sequence"]["id"] == "A" else native_library.SECOND_TEXT
            row.append((kind, 0, item["Sequence"]["type_id"]))
        else:
            token = item["SpecialToken"]
            ids = state["special_tokens"][token["id"]]["ids"]
            row += [(native_library.SPECIAL_TOKEN, each, token["type_id"]) for each in ids]
    texts = sorted(kind for kind, _, _ in row if kind != native_library.SPECIAL_TOKEN)
    if texts != ([native_library.FIRST_TEXT, native_library.SECOND_TEXT] if is_pair else [native_library.FIRST_TEXT]):
        raise UnsupportedTokenizer("its template repeats or leaves out a text")
    return row
