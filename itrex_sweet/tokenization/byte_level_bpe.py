"""Describes byte-level BPE as GPT-2, RoBERTa and ModernBERT have it to the native library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from itrex_sweet.tokenization.model_description import Arrays, ModelDescription, UnsupportedTokenizer
from itrex_sweet.tokenization.native_library import BYTE_LEVEL_BPE, CByteLevelBpe
from itrex_sweet.tokenization.parts import parts_of, state_of

_MAX_WHOLE_CHARACTERS = 255
# Bytes that UTF-8 never has, which some vocabularies leave out.
_NO_BYTES = {chr(byte) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}


def describe(backend: Any, model_state: Callable[[], dict[str, Any]], arrays: Arrays) -> ModelDescription:
    """Describes a tokenizer with a BPE model.

    Args:
        backend: a `tokenizers.Tokenizer`.
        model_state: returns its model as the library writes it.
        arrays: receives what the description points to.

    Raises:
        UnsupportedTokenizer: it is not a byte-level one with GPT-2's words or none, or it is not deterministic.
    """
    normalizers = [part["type"] for part in parts_of(state_of(backend.normalizer), "normalizers")]
    if normalizers not in ([], ["NFC"]):
        raise UnsupportedTokenizer(f"its normalizer is {' and '.join(normalizers)}, not NFC")
    words = parts_of(state_of(backend.pre_tokenizer), "pretokenizers")
    if [part["type"] for part in words] != ["ByteLevel"]:
        raise UnsupportedTokenizer("its pre-tokenizer is not ByteLevel alone")
    model = model_state()
    vocabulary = model["vocab"]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UnsupportedTokenizer(f"its model has {name}={model[name]!r}")
    # With all bytes in the vocabulary, the unknown token and its settings have no effect.
    if lacking := set(ByteLevel.alphabet()) - _NO_BYTES - vocabulary.keys():
        raise UnsupportedTokenizer(f"its vocabulary lacks {len(lacking)} bytes")
    if model.get("ignore_merges") and max(map(len, vocabulary)) > _MAX_WHOLE_CHARACTERS:
        raise UnsupportedTokenizer(f"ignore_merges, and a piece of more than {_MAX_WHOLE_CHARACTERS} characters")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise UnsupportedTokenizer("two pieces of its vocabulary have one id")
    structure = CByteLevelBpe(
        merges=arrays.strings(list(chain.from_iterable(_pairs(model["merges"])))),
        composes=bool(normalizers),
        splits=bool(words[0].get("use_regex", True)),
        adds_space=bool(words[0]["add_prefix_space"]),
        ignores_merges=bool(model.get("ignore_merges")),
    )
    return ModelDescription("byte-level BPE", BYTE_LEVEL_BPE, structure, vocabulary)


def _pairs(merges: list[Any]) -> Iterable[Any]:
    """Returns the two pieces of each merge, which releases before 0.20 write as one string."""
    return (merge.split(" ", 1) for merge in merges) if merges and isinstance(merges[0], str) else merges
