"""Describes a WordPiece tokenizer of the `tokenizers` library to the native one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from itrex_sweet.tokenization import native_library
from itrex_sweet.tokenization.file_tokenizer import state_of
from itrex_sweet.tokenization.native_library import CStrings, CWordPiece

_MAX_PIECE_CHARACTERS, _MAX_TOKEN_ID, _MAX_WORD_CHARACTERS = 63, (1 << 24) - 1, 1000


class UnsupportedTokenizer(Exception):
    """A tokenizer of another kind than this one reads; the message gives the reason."""


def description_of(backend: Any, model_state: Callable[[], dict[str, Any]] | None) -> tuple[CWordPiece, list[Any], int]:
    """Returns the description of a tokenizer for the library, the arrays that it points to, and the largest id."""
    if (kind := type(backend.model).__name__) != "WordPiece":
        raise UnsupportedTokenizer(f"its model is {kind}, not WordPiece")
    normalizer = state_of(backend.normalizer)
    if normalizer.get("type") != "BertNormalizer" or not normalizer.get("clean_text"):
        raise UnsupportedTokenizer("its normalizer is not a BertNormalizer with clean_text")
    if state_of(backend.pre_tokenizer) != {"type": "BertPreTokenizer"}:
        raise UnsupportedTokenizer("its pre-tokenizer is not BertPreTokenizer")
    model = state_of(backend.model) if model_state is None else model_state()  # faster than `get_vocab`
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
    single, pair = (template_of(backend, is_pair) for is_pair in (False, True))
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


def template_of(backend: Any, is_pair: bool) -> list[tuple[int, int, int]]:
    """Returns the special tokens and texts of a row in order: kind, token id and token type.

    Raises:
        UnsupportedTokenizer: a post-processor that makes other rows.
    """
    state = state_of(backend.post_processor)
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
