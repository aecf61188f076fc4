"""Compares the native tokenizer with the `tokenizers` library on random texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from itrex_sweet.tokenization.encoders import FastEncoder
from itrex_sweet.tokenization.file_tokenizer import FileTokenizer
from itrex_sweet.tokenization.native_reader import NativeReader
from tests.fuzz import unigram

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_LETTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'\"-#[]()"
    "\u00e0\u00e9\u00ef\u00f6\u00df\u00c9\u00d6\u0131\u0130\u0307\u0301\u0327\u03b1\u03c3\u03c2\u03a3\u03c9"
    "\u0439\u0438\u0418\u05d0\u0639\u064e\u0915\u094d\u093f\u0e01\u0e34\u1100\u1161\u11a8\u3042\u304b\u3099"
    "\u4e2d\u6587\u8c48\u2014\u201c\u20ac\U0001f600"
)
_WORDS = "the good soup un aff able token ##s ##ing ##ed ##able ##aff running Good caf\u00e9 cafe new york covid ##19"
_LONG_PARTS = (
    "[CLS]|[SEP]|[MASK]|[PAD]|[UNK]|[sep]|[|<new>|COVID|covid|Covid-19|New York|##|#|the |good |unaffable|tokens "
    "|'s|'ll|'re |'v|'d|  |   |<mask>|[MASK]||||IP||||<s>|</s>"
    "|running|Good |caf\u00e9 |CAFE\u0301 |a\u0301\u0316"
)
# Clusters of characters that NFKC changes, and what SentencePiece and ALBERT treat in ways of their own.
_CLUSTERS = (
    "\u00aa\u0301|\r\n|\u0600\u00bd|\u00b5\u200d|\u2122\u0308|\ufb01|\u330e|\ufdfa|\uff76\uff9e|\u0600|\u00bd|\u2460"
    "|\u2581|\u2581\u2581the|``|''|qZ|qq|<unk>|\u00a9\u200d\u00ae|\u0915\u094d\u0958\u0301|\u1000\u1039\u1000|\u0f77"
    "|\u17d2\u1780|\U0001f1e9\U0001f1ea|\uff23ovid|\u1039\u1000\u0301|\u17d2"
)
_PARTS = (
    *(" ", " ", " ", "  ", *"\t\n\r\x00\x0b\x0c\x1c\x7f\x85\xa0\xad\u2003\u3000\u2028\u200b\u200d\ufe0f\ufeff\ufffd"),
    *"\ue000\ufdd0\U000e0001\U0010ffff\U0001d165",
    *_LONG_PARTS.split("|"),
    *("|||IP|||", "a" * 90, " the" * 30, "\uac01", "\u1100\u1161", "\u0344", "\u0958", "\u212b"),
    *("x" * 60, "\u00e9" * 101),
    *_CLUSTERS.split("|"),
)


def word_piece(
    lowercase: bool,
    strip_accents: bool | None = None,
    spaced: bool = True,
    added: tuple[AddedToken, ...] = (),
    processor: Any = None,
) -> Tokenizer:
    """Makes a WordPiece tokenizer with a small vocabulary."""
    letters = [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    pieces = list(dict.fromkeys([*_SPECIAL, *letters, *_WORDS.split()]))
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=spaced, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processor or processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    tokenizer.add_tokens(list(added))
    return tokenizer


_BYTE_LEVEL_SPECIAL = ["<s>", "</s>", "<pad>", "<unk>"]
_ROBERTA = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
_CORPUS = (
    "the good soup, the unaffable tokens: they're running 2019 times! don't we'll I've \u4e2d\u6587",
    "caf\u00e9 cafe\u0301 New  York COVID-19   covid\n\n  the running soups aren't good...",
    "   a\u0301b \u00e9\u00e8 \uac01\u1100\u1161\u11a8 \U0001f600",
)


def byte_level(
    composes: bool = False,
    splits: bool = True,
    adds_space: bool = False,
    added: tuple[AddedToken, ...] = (),
    processor: Any = _ROBERTA,
    **model: Any,
) -> Tokenizer:
    """Makes a byte-level BPE tokenizer with a small vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if composes else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds_space, use_regex=splits)
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=_BYTE_LEVEL_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    for name, value in model.items():
        setattr(tokenizer.model, name, value)
    tokenizer.post_processor = processor
    tokenizer.add_tokens(list(added))
    return tokenizer


_SPACES = tuple(AddedToken(" " * count, normalized=True) for count in range(8, 1, -1))
_MODERN = (
    *_SPACES,
    AddedToken("<mask>", special=True, normalized=False, lstrip=True),
    AddedToken("[MASK]", special=True, normalized=False, lstrip=True, rstrip=True),
    AddedToken("|||IP|||", normalized=True),
    AddedToken("caf\u00e9", normalized=True, single_word=True),
    AddedToken("<new>", normalized=True, rstrip=True),
)
_ADDED = (
    AddedToken("<new>", normalized=False),
    AddedToken("COVID", normalized=True),
    AddedToken("Covid-19", normalized=True),
    AddedToken("New York", normalized=True),
    AddedToken("\u4e2d\u6587", normalized=True),
    AddedToken("oo", normalized=False),
)
_STRIPPING = (
    AddedToken("<new>", normalized=False, lstrip=True),
    AddedToken("covid", normalized=True, single_word=True),
)
KINDS: dict[str, Callable[[], Tokenizer]] = {
    "uncased": lambda: word_piece(True),
    "cased": lambda: word_piece(False),
    "cased, accents stripped": lambda: word_piece(False, strip_accents=True),
    "uncased, accents kept, ideographs joined": lambda: word_piece(True, strip_accents=False, spaced=False),
    "uncased, added tokens": lambda: word_piece(True, added=_ADDED),
    "cased, added tokens": lambda: word_piece(False, added=_ADDED),
    "uncased, added tokens that take spaces": lambda: word_piece(True, added=_STRIPPING),
    "uncased, BertProcessing": lambda: word_piece(
        True, processor=processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    ),
    "byte-level BPE": byte_level,
    "byte-level BPE, NFC, added tokens": lambda: byte_level(composes=True, added=_MODERN),
    "byte-level BPE, space added, added tokens": lambda: byte_level(adds_space=True, added=_MODERN),
    "byte-level BPE, merges ignored for whole words": lambda: byte_level(ignore_merges=True),
    "byte-level BPE, no words": lambda: byte_level(
        splits=False, composes=True, processor=processors.ByteLevel(trim_offsets=False)
    ),
    "byte-level BPE, sequence of processors": lambda: byte_level(
        processor=processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
                ),
            ]
        )
    ),
    **unigram.KINDS,
}


@dataclass
class Outcome:
    """Texts that were compared, those that the native tokenizer left to the library, and the first difference."""

    texts: int = 0
    left: int = 0
    difference: str | None = None


def compare(kind: str, texts: int, seed: int, tokenizer: Tokenizer | None = None) -> Outcome:
    """Compares ids, types and lengths of random texts and pairs, whole and truncated."""
    backend = tokenizer or KINDS[kind]()
    choice = random.Random(f"{kind} {seed}")
    backend.encode_special_tokens = is_split = choice.random() < 0.1
    side = choice.choice(["right", "right", "left"])
    encoder = FastEncoder(FileTokenizer(backend, truncation_side=side, split_special_tokens=is_split), backend)
    reader = NativeReader(backend)
    outcome = Outcome()
    while outcome.texts < texts and outcome.difference is None:
        rows = [_row(choice) for _ in range(min(64, texts - outcome.texts))]
        limit = choice.choice([None, None, *range(4, 20)])
        outcome.texts += len(rows)
        if (packed := reader.pack(rows, limit, side == "left", 0, allow_empty=True)) is not None:
            outcome.difference = _difference(packed, rows, encoder.encode(rows, limit))
            continue
        for row in rows:
            if (packed := reader.pack([row], limit, side == "left", 0, allow_empty=True)) is None:
                outcome.left += 1
            else:
                outcome.difference = outcome.difference or _difference(packed, [row], encoder.encode([row], limit))
    return outcome


def _difference(packed: Any, texts: list[Any], rows: list[Any]) -> str | None:
    batch, lengths, cut = packed
    ids, types, starts = batch.input_ids.tolist(), batch.token_type_ids.tolist(), batch.cu_seqlens.tolist()
    for place, (text, row) in enumerate(zip(texts, rows, strict=True)):
        own = slice(starts[place], starts[place + 1])
        if (ids[own], types[own], lengths[place]) != (row.ids, row.types, row.length):
            return f"{text!a}: {ids[own]} {types[own]} {lengths[place]}, expected {row}"
    if cut != sum(row.length > len(row.ids) for row in rows):
        return f"{cut} rows cut of {texts!a}"
    positions = [place for row in rows for place in _positions(row.ids)]
    return None if batch.position_ids.tolist() == positions else f"positions of {texts!a}"


def _positions(ids: list[int], padding: int = 0) -> list[int]:
    found, position = [], 0
    for token in ids:
        found.append(-1 if token == padding else position)
        position += token != padding
    return found


def _row(choice: random.Random) -> Any:
    return (_text(choice), _text(choice)) if choice.random() < 0.2 else _text(choice)


def _text(choice: random.Random) -> str:
    style, length = choice.random(), choice.randrange(0, 16)
    if style < 0.45:
        return "".join(choice.choices(_PARTS, k=length))
    highest = choice.choice([0x80, 0x250, 0x600, 0x3000, 0xD800, 0xD800, 0x20000])

    def other() -> str:
        return choice.choice(_LETTERS) if style < 0.8 else chr(choice.randrange(highest))

    text = "".join(choice.choice(_PARTS) if choice.random() < 0.35 else other() for _ in range(length))
    return text.translate(_WITHOUT_SURROGATES)


_WITHOUT_SURROGATES = dict.fromkeys(range(0xD800, 0xE000))
