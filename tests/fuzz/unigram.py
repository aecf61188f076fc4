"""Makes Unigram tokenizers with the settings of XLM-RoBERTa, DeBERTa-v3 and others, and a small vocabulary."""

from __future__ import annotations

import random
import struct
import unicodedata
from collections.abc import Mapping
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

SPACE = "\u2581"
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
_TEMPLATE = processors.TemplateProcessing(
    single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
)
TYPED_TEMPLATE = processors.TemplateProcessing(
    single="<s>:0 $A:0 </s>:0", pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
)
_CORPUS = (
    "the good soup, the unaffable tokens: they're running 2019 times! don't we'll I've \u4e2d\u6587 "
    "caf\u00e9 cafe\u0301 New York COVID-19 the running soups aren't good... the most e\u0301\u0301 \u0439\u0438\u0306 "
    'abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ "()#\u0915\u094d\u093f <unk> <s> \uac01 \u2581\u2581'
)
ADDED = (
    AddedToken("<mask>", special=True, normalized=False, lstrip=True),
    AddedToken("<new>", normalized=True),
    AddedToken("[MASK]", normalized=False, rstrip=True),
    AddedToken("caf\u00e9", normalized=True, single_word=True),
    AddedToken("\uff23ovid", normalized=True),
)


def character_map(rules: Mapping[str, str]) -> bytes:
    """Returns what the normalizer `Precompiled` reads: a double-array trie of the keys, and the replacements."""
    places: dict[str, int] = {}
    replacements = b""
    for value in sorted(set(rules.values())):
        places[value] = len(replacements)
        replacements += value.encode() + b"\0"
    children: dict[bytes, set[int]] = {b"": set()}
    for key in rules:
        data = key.encode()
        for size, byte in enumerate(data):
            children.setdefault(data[:size], set()).add(byte)
            children.setdefault(data[: size + 1], set())
    values = {key.encode(): places[value] for key, value in rules.items()}
    units, bases, unit_of, last = {0: 0}, {0}, {b"": 0}, 1
    for node in sorted(children, key=lambda prefix: (len(prefix), prefix)):
        labels = sorted(children[node]) + [0] * (node in values)
        free = max(1, last - 256)
        while (base := free ^ labels[0]) in bases or any(base ^ label in units for label in labels):
            free += 1
        bases.add(base)
        last = max(last, free)
        place = unit_of[node]
        units[place] |= (place ^ base) << 10 | (node in values) << 8
        assert place ^ base < 1 << 21
        for label in labels:
            units[base ^ label] = label if label else 1 << 31 | values[node]
            unit_of[node + bytes([label])] = base ^ label
    size = max(units) // 256 * 256 + 256
    return struct.pack(f"<I{size}I", 4 * size, *(units.get(place, 0) for place in range(size))) + replacements


@cache
def nfkc_map() -> bytes:
    """Returns a map as SentencePiece's `nmt_nfkc`: NFKC of characters and of composed ones, and removed controls."""
    rules: dict[str, str] = {}
    for code in range(1, 0x20000):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        form = unicodedata.normalize("NFKC", character)
        if form != character:
            rules[character] = form
        if unicodedata.decomposition(character) and code < 0x2000:  # keys of several characters
            rules.setdefault(unicodedata.normalize("NFD", character), form)
    rules |= dict.fromkeys(map(chr, (*range(1, 9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F)), "")
    spaces = (9, 10, 12, 13, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD)
    return character_map({**rules, **dict.fromkeys(map(chr, spaces), " ")})


def pieces() -> list[tuple[str, float]]:
    """Returns a vocabulary whose scores are often equal, also in sum."""
    choice = random.Random(7)
    text = _CORPUS.replace(" ", SPACE)
    found = {text[start : start + size] for start in range(len(text)) for size in range(1, 5)}
    kept = [piece for piece in sorted(found) if len(piece) == 1 or choice.random() < 0.4]
    # Some letters have no piece of their own, others only as a part of others.
    kept = [piece for piece in kept if piece not in "qZ\u0915"]
    return [
        *((token, 0.0) for token in _SPECIAL),
        *((piece, -choice.randrange(4, 24) / 4 * len(piece) ** 0.5) for piece in kept),
    ]


def unigram(
    normalizer: Any = None,
    words: Any = None,
    added: tuple[AddedToken, ...] = ADDED,
    processor: Any = _TEMPLATE,
    more: tuple[tuple[str, float], ...] = (),
    unknown: int | None = 3,
    byte_fallback: bool = False,
) -> Tokenizer:
    """Makes a Unigram tokenizer."""
    tokenizer = Tokenizer(models.Unigram([*pieces(), *more], unknown, byte_fallback))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace() if words is None else words
    tokenizer.post_processor = processor
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    tokenizer.add_tokens(list(added))
    return tokenizer


def like_xlm_roberta(**settings: Any) -> Tokenizer:
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    return unigram(normalizers.Precompiled(nfkc_map()), pre_tokenizers.Sequence(words), **settings)


def like_deberta_v3(**settings: Any) -> Tokenizer:
    steps = [normalizers.Strip(), normalizers.Precompiled(nfkc_map()), normalizers.Replace(Regex(" {2,}"), " ")]
    return unigram(
        normalizers.Sequence(steps),
        pre_tokenizers.Sequence([pre_tokenizers.Metaspace()]),
        processor=TYPED_TEMPLATE,
        **settings,
    )


def like_deberta_v3_of_transformers_5() -> Tokenizer:
    steps = [
        normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
        normalizers.NFC(),
        normalizers.Strip(left=False, right=True),
    ]
    added = tuple(token for token in ADDED if not token.normalized)
    words = pre_tokenizers.Metaspace(prepend_scheme="first")
    return unigram(normalizers.Sequence(steps), words, added, TYPED_TEMPLATE)


def like_t5() -> Tokenizer:
    steps = [
        normalizers.Precompiled(nfkc_map()),
        normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), SPACE),
    ]
    return unigram(normalizers.Sequence(steps))


def like_albert(composed: bool = False) -> Tokenizer:
    steps = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
        *([normalizers.NFKC()] if composed else [normalizers.NFKD(), normalizers.StripAccents()]),
        normalizers.Lowercase(),
        normalizers.Precompiled(nfkc_map()),
    ]
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="never" if composed else "always")
    words = [pre_tokenizers.WhitespaceSplit(), metaspace]
    return unigram(normalizers.Sequence(steps), pre_tokenizers.Sequence(words), processor=TYPED_TEMPLATE)


def without_words() -> Tokenizer:
    more = tuple((f"<0x{byte:02X}>", -9.0) for byte in range(256) if byte != 0xC3)
    words = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    return unigram(normalizers.Prepend(SPACE), words, more=more, byte_fallback=True)


# Of equal pieces the last counts; the unknown pieces of a text make one, which may be a piece again.
_ODD_PIECES = (("the", -50.0), ("qZ", -400.0), ("qq", -401.0), ("soup", 30.0), (SPACE * 3, 1.5), ("good", -0.0))

KINDS = {
    "Unigram, as XLM-RoBERTa": like_xlm_roberta,
    "Unigram, as DeBERTa-v3": like_deberta_v3,
    "Unigram, as DeBERTa-v3 of transformers 5": like_deberta_v3_of_transformers_5,
    "Unigram, as T5": like_t5,
    "Unigram, as ALBERT": like_albert,
    "Unigram, accents kept, NFKC, space not added": lambda: like_albert(composed=True),
    "Unigram, no words, unknown characters as bytes": without_words,
    "Unigram, no normalizer, odd scores": lambda: unigram(
        words=pre_tokenizers.Metaspace(prepend_scheme="first"), more=_ODD_PIECES
    ),
}
