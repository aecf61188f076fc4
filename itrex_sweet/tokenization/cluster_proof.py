"""Compares the grapheme clusters of the native library with those of the `tokenizers` library that is installed.

The map of a tokenizer changes few characters, so that its own texts tell little of them. A map that changes every
character shows where clusters of less than six bytes end.
"""

from __future__ import annotations

import functools
import struct

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from itrex_sweet.tokenization.native_reader import NativeReader

# Units: the root, that of the value, and one for each byte; a unit holds the distance to the next one.
_UNITS = [256 << 10, *[0] * 255, *(1 << 8 | byte | (256 ^ byte ^ 1) << 10 for byte in range(256))]
# A map in which each byte but 0 is a key, and "x" stands for all.
EVERY_BYTE = struct.pack(f"<I{len(_UNITS)}I", 4 * len(_UNITS), *_UNITS) + b"x\0"
# Letters, marks and signs beside a character tell how it is joined to others.
_CONTEXTS = (
    *("a{0}", "{0}a", "{0}\u0301\u0301", "{0}\u1161\u0301", "{0}\u11a8\u0301", "{0}\u200d\u00a9\u0301"),
    *("\u00a9{0}\u200d\u00a9\u0301", "{0}\u094d\u0915\u0301", "\u0915{0}\u0915\u0301", "\u0915\u094d{0}\u0915\u0301"),
)


def contexts(character: str) -> str:
    """Returns a text in which a character stands beside others of each class."""
    return "\t".join(context.format(character) for context in _CONTEXTS)


def tokenizer_of_clusters() -> Tokenizer:
    """Makes a tokenizer that turns each cluster of less than six bytes, and each character of a longer one, into x."""
    tokenizer = Tokenizer(models.Unigram([("x", 0.0)], 0, False))
    tokenizer.normalizer = normalizers.Precompiled(EVERY_BYTE)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@functools.cache
def clusters_differ() -> bool:
    """Returns whether the libraries differ at characters that begin or end a class."""
    tokenizer = tokenizer_of_clusters()
    reader, normalize = NativeReader(tokenizer), tokenizer.normalizer.normalize_str
    texts = [contexts(chr(code)) for code in reader.borders()]
    return any(reader.normalize(text) not in (None, normalize(text)) for text in texts)
