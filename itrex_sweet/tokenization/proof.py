"""Compares a fast reader with the `tokenizers` library on texts that are hard to tokenize, before it is used."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from itrex_sweet.tokenization.cluster_proof import clusters_differ
from itrex_sweet.tokenization.inputs import Text
from itrex_sweet.tokenization.native_reader import NativeReader

# Truncation is compared at these lengths, beyond the special tokens.
_LENGTHS = (1, 2, 7)
_MAX_ADDED_TOKENS = 64
_RANDOM_TEXTS = 50

_PHRASES = (
    "The quick brown fox jumps over the lazy dog.|don't won't it's O'Neill's|3.14 1,000,000 $5 50% #1 @you a_b x=y+z"
    "|unaffable electroencephalographically antidisestablishmentarianism|##ing ##|!?.,;:()[]{}<>/\\`~^&*"
    "|na\u00efve Caf\u00e9 \u00c5ngstr\u00f6m \u0130stanbul STRASSE stra\u00dfe"
    "|e\u0301 E\u0301 \u1ec7 a\u0300\u0316\u0301b"
    "|\u4e2d\u6587 text\u4e2d\u6587mixed|\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8"
    "|\ud55c\uad6d\uc5b4 \uac01\uac00"
    "|\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0419\u0401|\u0639\u064e\u0631\u064e\u0628\u064a"
    "|\u0939\u093f\u0928\u094d\u0926\u0940|\U0001f600\U0001f1e9\U0001f1ea a\ufe0fb\u200db"
    "|zero\u200bwidth soft\u00adhyphen \ufefftext \ufffd|nul\x00 bell\x07 a\x7fb"
    "|a\u00a0b\u2003c\u3000d\u2028e\u0085f\x0bg\x0ch|\u201cquotes\u201d \u2018single\u2019 \u2014 dash \u2026"
    "|\uf900\ufa30\u2f00 \u03a9\u2126 \u212a \u1e9e \u037e \u1fef|[cls] [Sep|<s></s><pad><unk><mask>"
    "|[CLS] [SEP][PAD] a[MASK]b [UNK]|\u2581a \u2581\u2581 b\u2581"
    "|``quoted'' text``|\ufb01x \u2460\u00bd \ufdfa\u33a5 \r\n \u00aa\u0301b"
)
_TEXTS = (
    *("", " ", "\t\r\n", "a"),
    *_PHRASES.split("|"),
    *("x" * 99, "x" * 100, "x" * 101, "ab " * 60, "A" * 300, "  a   b" + " " * 30, "\u4e00" * 60),
    *("\u0301" * 20, "a\u0301" * 101, "\U0001d400" * 100),
)
# Marks that Unicode reorders and `strip_accents` keeps.
_REORDERED = ("a\U0001d165\u302eb", "a\u302e\U0001d165b", "a\u1b44\U0001d16db", "a\U0001d15e\u1bf2b")
_CUT = (*_TEXTS[4:10], _TEXTS[-9])  # texts that are also compared after truncation
_PAIRS = (
    *(("a", "b"), ("The quick brown fox", "jumps"), ("short", "over the lazy dog and far away"), ("", "b"), ("a", "")),
    *(("one two three four", "five six seven eight"), ("[SEP]", "caf\u00e9 [MASK]"), ("x" * 101, "\u4e2d\u6587")),
)
_ALPHABET = (
    *"abcdefghijklmnopqrstuvwxyzABCXYZ0189 .,'!-#[]\t\n\x00\x1f\x7f",
    *"\u00e9\u00c9\u0301\u0316\u0130\u00df\u4e2d\uac01\u3042\u200b\u00ad\ufffd\u00a0\u2003\u0085\u0439\u03a3\u03c2\U0001f600",
    *("the ", "ing", "un", "##", "[SEP]", "[MASK]", " "),
)


def difference(reader: NativeReader, encoder: Any) -> str | None:
    """Returns the first difference between a reader and the encoder that it replaces; `None` if there is none.

    Args:
        reader: to be used if it is equal.
        encoder: a `FastEncoder`.
    """
    characters = [chr(code) for code in reader.borders()]
    borders = " ".join(f"a{character}b" for character in characters)
    for text in (borders, "".join(characters)):
        if reader.normalize(text) != encoder.normalize(text):
            return "it normalizes characters differently"
    if encoder.maps_clusters and clusters_differ():
        return "it tells grapheme clusters apart differently"
    # A letter, a number or another character makes one word with another of its kind.
    together = " " + encoder.normalize(" ".join(f"a{each} 1{each} !{each}" for each in characters))
    if reader.words(together) not in (None, encoder.words(together)):
        return "it splits words differently"
    for text in _REORDERED:
        if reader.normalize(text) not in (None, encoder.normalize(text)):
            return "it orders marks differently"
    for text in (borders, *_texts(encoder, characters)):
        if (shown := _difference(reader, encoder, [text], None)) is not None:
            return shown
    for limit in _LENGTHS:
        singles, pairs = (limit + count for count in reader.special_tokens)
        for text in _CUT:
            if (shown := _difference(reader, encoder, [text], singles)) is not None:
                return shown
        for pair in _PAIRS:
            if (shown := _difference(reader, encoder, [pair], pairs)) is not None:
                return shown
    together = [text for text in (*_TEXTS, *_PAIRS, *_TEXTS[:8]) if reader.pack([text], allow_empty=True) is not None]
    return _difference(reader, encoder, together, None)


def _texts(encoder: Any, characters: list[str]) -> Iterator[Text]:
    yield from _TEXTS
    yield from _PAIRS
    added = encoder.added_tokens()
    for token in added[:_MAX_ADDED_TOKENS]:
        text = token.content
        yield f"{text} a{text}b {text}{text} {text.lower()} x{text.upper()} {text[:-1]} {text.title()}."
        yield f"a \u00a0 {text}\n\u2003 {text} b"
    if (single := next((token.content for token in added if token.single_word), None)) is not None:
        yield " ".join(f"{character}{single}! {single}{character}" for character in characters)
    choice = random.Random(0)
    for _ in range(_RANDOM_TEXTS):
        yield "".join(choice.choices(_ALPHABET, k=choice.randrange(1, 40)))


def _difference(reader: NativeReader, encoder: Any, texts: list[Text], limit: int | None) -> str | None:
    packed = reader.pack(texts, limit, encoder.cuts_from_left, None, allow_empty=True)
    if packed is None:  # a text that it leaves to the other tokenizer
        return None if len(texts) == 1 else "it reads texts alone and not together"
    batch, lengths, _ = packed
    ids, types, start = batch.input_ids.tolist(), batch.token_type_ids.tolist(), 0
    for text, end, length in zip(texts, batch.cu_seqlens[1:].tolist(), lengths.tolist(), strict=True):
        row = encoder.encode_here(text, limit)
        row_types = row.types or [0] * len(row.ids)
        if (ids[start:end], length) != (row.ids, row.length):
            return f"it encodes {_shown(text)} differently"
        if encoder.with_types and types[start:end] != row_types:
            return f"it gives {_shown(text)} other token types"
        start = end
    return None


def _shown(text: Text) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
