"""ctypes declarations of `csrc/tokenizer/api.h`, and the loading of the tokenizer library."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_char_p, c_double, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path
from typing import Any

from itrex_sweet.runtime import native

INTERFACE = 3  # `kInterface`: the version that the library must have

# `sweet_model_kind`
WORDPIECE, BYTE_LEVEL_BPE, UNIGRAM = 0, 1, 2
# `sweet_normalizer_kind`
CHARACTER_MAP, UNICODE_FORM, REPLACE, REPLACE_SPACES, REPLACE_WHITESPACE, STRIP, PREPEND = range(7)
STRIP_ACCENTS, LOWERCASE = 7, 8
# `sweet_unicode_form`
COMPOSED, COMPATIBLE = 1, 2
# `sweet_side`
LEFT, RIGHT = 1, 2
# `sweet_prepending`
NEVER, AT_START, ALWAYS = 0, 1, 2
# `sweet_added_token`
NORMALIZED, IS_TEXT, TAKES_LEFT, TAKES_RIGHT, SINGLE_WORD = 1, 2, 4, 8, 16
# `sweet_template_item`
SPECIAL_TOKEN, FIRST_TEXT, SECOND_TEXT = 0, 1, 2
# `sweet_encode_option`
FROM_LEFT, ALLOW_EMPTY = 1, 2
# `sweet_encode_contents`
HAS_TYPES, HAS_POSITIONS = 1, 2

# `sweet_encode_result`
SMALL_OUTPUT = -5

# Calls of at most so many bytes hold the GIL: another thread that takes it would return it only after 5 ms.
BYTES_WITH_GIL = 16384


class CStrings(Structure):
    """`sweet_strings`."""

    _fields_ = [("bytes", c_char_p), ("size", c_int64), ("count", c_int64)]


class CWordPiece(Structure):
    """`sweet_wordpiece`."""

    _fields_ = [
        ("prefix", CStrings),
        *((name, c_int32) for name in ("unknown_id", "max_word_characters")),
        *((name, c_int32) for name in ("spaced_ideographs", "strip_accents", "lowercase", "unused")),
    ]


class CByteLevelBpe(Structure):
    """`sweet_byte_level_bpe`."""

    _fields_ = [
        ("merges", CStrings),
        *((name, c_int32) for name in ("composes", "splits", "adds_space", "ignores_merges")),
    ]


class CNormalizer(Structure):
    """`sweet_normalizer`."""

    _fields_ = [
        *((name, c_int32) for name in ("kind", "flags")),
        *(("first", c_void_p), ("first_size", c_int64), ("second", c_void_p), ("second_size", c_int64)),
    ]


class CUnigram(Structure):
    """`sweet_unigram`."""

    _fields_ = [
        *((name, c_void_p) for name in ("normalizers", "scores")),
        ("unknown_score", c_double),
        *((name, c_int32) for name in ("unknown_id", "normalizer_count", "splits_whitespace", "prepends")),
        *((name, c_int32) for name in ("splits", "byte_fallback")),
        ("replacement", CStrings),
    ]


class CTokenizer(Structure):
    """`sweet_tokenizer`."""

    _fields_ = [
        *((name, c_int32) for name in ("model_kind", "single_items", "pair_items", "unused")),
        ("model", c_void_p),
        ("pieces", CStrings),
        ("ids", c_void_p),
        ("added", CStrings),
        *((name, c_void_p) for name in ("added_ids", "added_flags", "single", "pair")),
    ]


class LibraryUnavailable(Exception):
    """The tokenizer library was not built, or does not match this package; the message gives the reason."""


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sweet_tokenizer_interface": (c_int32, ()),
    "sweet_tokenizer_new": (c_void_p, (POINTER(CTokenizer),)),
    "sweet_tokenizer_free": (None, (c_void_p,)),
    "sweet_tokenizer_encode": (
        c_int64,
        (
            *(c_void_p, c_char_p, c_int64, c_void_p, c_char_p, c_int64, c_int64, c_int32, c_int64),
            *(c_void_p, c_int64),
        ),
    ),
    "sweet_tokenizer_borders": (c_int64, (c_void_p, POINTER(c_uint32), c_int64)),
    "sweet_tokenizer_normalize": (c_int64, (c_void_p, c_char_p, c_int64, c_char_p, c_int64)),
    "sweet_tokenizer_words": (c_int64, (c_void_p, c_char_p, c_int64, POINTER(c_int64), c_int64)),
}
_PATH = Path(native.__file__).resolve().parent / "lib" / "libsweet_tokenizer.so"


class TokenizerLibrary:
    """The library's functions; `encode_with_gil` is `encode`, called without releasing the GIL."""

    def __init__(self, path: Path):
        handle, with_gil = ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL), ctypes.PyDLL(str(path))
        for library in (handle, with_gil):
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        self.new, self.free = handle.sweet_tokenizer_new, handle.sweet_tokenizer_free
        self.encode, self.encode_with_gil = handle.sweet_tokenizer_encode, with_gil.sweet_tokenizer_encode
        self.borders, self.normalize = handle.sweet_tokenizer_borders, handle.sweet_tokenizer_normalize
        self.words = handle.sweet_tokenizer_words
        if (version := handle.sweet_tokenizer_interface()) != INTERFACE:
            raise LibraryUnavailable(f"{path.name} has version {version} of its interface, not {INTERFACE}")


@functools.cache
def load() -> TokenizerLibrary:
    """Loads the library.

    Raises:
        LibraryUnavailable: it was not built, cannot be loaded, or has another version.
    """
    if not _PATH.is_file():
        raise LibraryUnavailable(f"{_PATH.name} was not built")
    try:
        return TokenizerLibrary(_PATH)
    except (OSError, AttributeError) as error:
        raise LibraryUnavailable(f"{_PATH.name} cannot be loaded: {error}") from error
