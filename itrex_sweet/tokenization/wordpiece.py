"""Describes WordPiece as BERT has it to the native library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from itrex_sweet.tokenization.model_description import Arrays, ModelDescription, UnsupportedTokenizer
from itrex_sweet.tokenization.native_library import WORDPIECE, CWordPiece
from itrex_sweet.tokenization.parts import state_of

_MAX_PIECE_CHARACTERS, _MAX_WORD_CHARACTERS = 63, 1000


def describe(backend: Any, model_state: Callable[[], dict[str, Any]], arrays: Arrays) -> ModelDescription:
    """Describes a tokenizer with a WordPiece model.

    Args:
        backend: a `tokenizers.Tokenizer`.
        model_state: returns its model as the library writes it.
        arrays: receives what the description points to.

    Raises:
        UnsupportedTokenizer: it is not as BERT's.
    """
    normalizer = state_of(backend.normalizer)
    if normalizer.get("type") != "BertNormalizer" or not normalizer.get("clean_text"):
        raise UnsupportedTokenizer("its normalizer is not a BertNormalizer with clean_text")
    if state_of(backend.pre_tokenizer) != {"type": "BertPreTokenizer"}:
        raise UnsupportedTokenizer("its pre-tokenizer is not BertPreTokenizer")
    model = model_state()
    vocabulary, unknown, longest = model["vocab"], model["unk_token"], model["max_input_chars_per_word"]
    if not 1 <= longest <= _MAX_WORD_CHARACTERS:
        raise UnsupportedTokenizer(f"max_input_chars_per_word is {longest}")
    if unknown not in vocabulary:
        raise UnsupportedTokenizer(f"its vocabulary has no unknown token {unknown!r}")
    if max(map(len, vocabulary)) > _MAX_PIECE_CHARACTERS:
        raise UnsupportedTokenizer(f"a piece has more than {_MAX_PIECE_CHARACTERS} characters")
    strip = normalizer.get("strip_accents")
    structure = CWordPiece(
        prefix=arrays.strings([model["continuing_subword_prefix"]]),
        unknown_id=vocabulary[unknown],
        max_word_characters=longest,
        spaced_ideographs=bool(normalizer["handle_chinese_chars"]),
        strip_accents=bool(normalizer["lowercase"] if strip is None else strip),
        lowercase=bool(normalizer["lowercase"]),
        unused=0,
    )
    return ModelDescription("WordPiece", WORDPIECE, structure, vocabulary)
