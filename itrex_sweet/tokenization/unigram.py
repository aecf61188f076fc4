"""Describes SentencePiece's Unigram as XLM-RoBERTa and DeBERTa-v3 have it to the native library."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from itrex_sweet.tokenization import native_library
from itrex_sweet.tokenization.model_description import Arrays, ModelDescription, UnsupportedTokenizer
from itrex_sweet.tokenization.native_library import CNormalizer, CUnigram
from itrex_sweet.tokenization.parts import parts_of, state_of

_UNKNOWN_PENALTY = 10.0
_MAX_PIECE_CHARACTERS = 1000  # every piece is tried at every character of a text
_PREPENDING = {"never": native_library.NEVER, "first": native_library.AT_START, "always": native_library.ALWAYS}
_EXPRESSIONS = {
    " {2,}": native_library.REPLACE_SPACES,
    r"\s{2,}|[\n\r\t]": native_library.REPLACE_WHITESPACE,
}


def describe(backend: Any, model_state: Callable[[], dict[str, Any]], arrays: Arrays) -> ModelDescription:
    """Describes a tokenizer with a Unigram model.

    Args:
        backend: a `tokenizers.Tokenizer`.
        model_state: returns its model as the library writes it.
        arrays: receives what the description points to.

    Raises:
        UnsupportedTokenizer: it has a normalizer or pre-tokenizer that SentencePiece's tokenizers rarely have.
    """
    normalizers = [_normalizer(part, arrays) for part in parts_of(state_of(backend.normalizer), "normalizers")]
    words = parts_of(state_of(backend.pre_tokenizer), "pretokenizers")
    kinds = [part["type"] for part in words]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise UnsupportedTokenizer(
            f"its pre-tokenizer is {' and '.join(kinds) or 'none'}, not Metaspace, or WhitespaceSplit and Metaspace"
        )
    prepends = _PREPENDING[words[-1].get("prepend_scheme", "always")]
    if prepends == native_library.AT_START:
        # The library looks at the place in the original text, which these move.
        added = backend.get_added_tokens_decoder().values()
        if len(words) > 1 or (normalizers and any(token.normalized for token in added)):
            raise UnsupportedTokenizer(
                "its Metaspace has prepend_scheme='first', beside WhitespaceSplit or normalized added tokens"
            )
    model = model_state()
    unknown = model.get("unk_id")
    pieces, scores = zip(*model["vocab"], strict=True) if model["vocab"] else ((), ())
    if (longest := max(map(len, pieces), default=0)) > _MAX_PIECE_CHARACTERS:
        raise UnsupportedTokenizer(f"its vocabulary has a piece of {longest} characters")
    vocabulary = dict(zip(pieces, range(len(pieces)), strict=True))  # of equal pieces the last counts
    structure = CUnigram(
        normalizers=arrays.structures(CNormalizer, normalizers),
        scores=arrays.numbers([scores[place] for place in vocabulary.values()]),
        unknown_score=min(scores, default=0.0) - _UNKNOWN_PENALTY,
        unknown_id=-1 if unknown is None else unknown,
        normalizer_count=len(normalizers),
        splits_whitespace=len(words) > 1,
        prepends=prepends,
        splits=bool(words[-1].get("split", True)),
        byte_fallback=bool(model.get("byte_fallback")),
        replacement=arrays.strings([words[-1]["replacement"]]),
    )
    return ModelDescription("Unigram", native_library.UNIGRAM, structure, vocabulary)


def _normalizer(part: dict[str, Any], arrays: Arrays) -> CNormalizer:
    if part["type"] not in _NORMALIZERS:
        raise UnsupportedTokenizer(f"its normalizer has {part['type']}")
    kind, flags, first, second = _NORMALIZERS[part["type"]](part)
    return CNormalizer(kind, flags, *arrays.bytes(first), *arrays.bytes(second))


_Normalizer = tuple[int, int, bytes, bytes]


def _precompiled(part: dict[str, Any]) -> _Normalizer:
    return native_library.CHARACTER_MAP, 0, base64.b64decode(part["precompiled_charsmap"]), b""


def _replace(part: dict[str, Any]) -> _Normalizer:
    content = part["content"].encode()
    (kind, pattern), *_ = part["pattern"].items()
    if kind == "String" and pattern:
        return native_library.REPLACE, 0, pattern.encode(), content
    if kind == "Regex" and pattern in _EXPRESSIONS:
        return _EXPRESSIONS[pattern], 0, b"", content
    raise UnsupportedTokenizer(f"its normalizer replaces {pattern!r}")


def _strip(part: dict[str, Any]) -> _Normalizer:
    sides = {native_library.LEFT: part["strip_left"], native_library.RIGHT: part["strip_right"]}
    return native_library.STRIP, sum(side for side, is_set in sides.items() if is_set), b"", b""


_NORMALIZERS: dict[str, Callable[[dict[str, Any]], _Normalizer]] = {
    "Precompiled": _precompiled,
    "Replace": _replace,
    "Strip": _strip,
    "NFD": lambda part: (native_library.UNICODE_FORM, 0, b"", b""),
    "NFC": lambda part: (native_library.UNICODE_FORM, native_library.COMPOSED, b"", b""),
    "NFKD": lambda part: (native_library.UNICODE_FORM, native_library.COMPATIBLE, b"", b""),
    "NFKC": lambda part: (native_library.UNICODE_FORM, native_library.COMPATIBLE + native_library.COMPOSED, b"", b""),
    "StripAccents": lambda part: (native_library.STRIP_ACCENTS, 0, b"", b""),
    "Lowercase": lambda part: (native_library.LOWERCASE, 0, b"", b""),
    "Prepend": lambda part: (native_library.PREPEND, 0, b"", part["prepend"].encode()),
}
