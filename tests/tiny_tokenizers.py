"""Tokenizers of many kinds with the words of `tiny_tokenizer`; post-processors, token types and truncation differ."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from tests.tiny_artifacts import WORDS

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_NAMES = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def _word_level(post_processor: Any) -> Tokenizer:
    vocabulary = {token: place for place, token in enumerate([*_SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def _word_pieces(post_processor: Any) -> Tokenizer:
    pieces = [*_SPECIAL, *"abcdefghijklmnopqrstuvwxyz", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = post_processor
    return tokenizer


def _bytes(post_processor: Any) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*_SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = post_processor
    return tokenizer


_TEMPLATE = processors.TemplateProcessing(
    single="[CLS] $A [SEP]",
    pair="[CLS] $A [SEP] $B:1 [SEP]:1",
    special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
)
_BERT = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
_ROBERTA = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
_AT_THE_END = processors.TemplateProcessing(
    single="$A [SEP] [CLS]:1", pair="$A [SEP] $B:1 [SEP]:1 [CLS]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)

BACKENDS = {
    "template": lambda: _word_level(_TEMPLATE),
    "special tokens at the end": lambda: _word_level(_AT_THE_END),
    "no special tokens": lambda: _word_level(None),
    "bert": lambda: _word_pieces(_BERT),
    "roberta": lambda: _bytes(_ROBERTA),
    "bytes alone": lambda: _bytes(processors.ByteLevel(trim_offsets=False)),
    "sequence": lambda: _bytes(processors.Sequence([processors.ByteLevel(trim_offsets=False), _TEMPLATE])),
}


def fast_tokenizer(kind: str = "template", truncated: bool = False, **options: Any) -> PreTrainedTokenizerFast:
    """Returns a fast tokenizer of a kind.

    Args:
        truncated: its file asks for truncation to 5 tokens and for padding to 9.
        options: of the tokenizer.
    """
    backend = BACKENDS[kind]()
    if truncated:
        backend.enable_truncation(5)
        backend.enable_padding(length=9, pad_token="[PAD]")
    names = [*dict.fromkeys(["input_ids", "token_type_ids", "attention_mask"])]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **_NAMES, **options)


class SlowTokenizer(PreTrainedTokenizer):
    """A word-level tokenizer in Python, with BERT's special tokens."""

    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]

    def __init__(self, **options: Any):
        self._ids = {token: place for place, token in enumerate([*_SPECIAL, *WORDS])}
        super().__init__(**{**_NAMES, **options})

    @property
    def vocab_size(self) -> int:
        return len(self._ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        if "#fail" in text:
            raise RuntimeError("no token for #fail")
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, 1)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self._ids)[index]

    def build_inputs_with_special_tokens(self, first: list[int], second: list[int] | None = None) -> list[int]:
        return [2, *first, 3, *(() if second is None else (*second, 3))]

    def create_token_type_ids_from_sequences(self, first: list[int], second: list[int] | None = None) -> list[int]:
        return [0] * (len(first) + 2) + [1] * (0 if second is None else len(second) + 1)

    def get_special_tokens_mask(self, *_: Any, **__: Any) -> list[int]:
        return []
