"""Tokenizer classes of transformers whose `tokenizer.json` can be read without it, and what each makes of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, normalizers, processors

from itrex_sweet.tokenization.parts import state_of

TOKENIZER_FILE = "tokenizer.json"

_WITH_TYPES, _WITHOUT_TYPES = ("input_ids", "token_type_ids", "attention_mask"), ("input_ids", "attention_mask")
_DEBERTA_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# Classes for any tokenizer of the library, as transformers 4 and 5 name them when they save one -> the inputs that the
# same release makes, unless `tokenizer_config.json` says otherwise.
GENERIC_CLASSES = {"PreTrainedTokenizerFast": _WITH_TYPES, "TokenizersBackend": _WITHOUT_TYPES}

# model_type of a config -> the class of its tokenizer, where no file names one
_CLASS_OF_FAMILY = {
    "bert": "BertTokenizer",
    "electra": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
}
_BERT_TOKENS = {
    **{"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
    **{"cls_token": "[CLS]", "mask_token": "[MASK]"},
}
_DEBERTA_TOKENS = {**_BERT_TOKENS, "bos_token": "[CLS]", "eos_token": "[SEP]"}
_ROBERTA_TOKENS = {
    **{"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}


class NotStandardError(Exception):
    """A tokenizer that only transformers can load; the message gives the reason."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise NotStandardError(f"{TOKENIZER_FILE} has another {what} than its class makes")


def _template(single: str, pair: str, tokens: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return state_of(processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(tokens)))


def _complete_bert(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Completes the WordPiece of BERT, DistilBERT and ELECTRA."""
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    ids = {token: backend.token_to_id(token) for token in (cls, sep)}
    standard = (
        _template(f"{cls}:0 $A:0 {sep}:0", f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", list(ids.items())),
        state_of(processors.BertProcessing((sep, ids[sep]), (cls, ids[cls]))),
    )
    _require(state_of(backend.post_processor) in standard, "post-processor")
    _complete_word_pieces(backend, tokens, settings)


def _complete_mpnet(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Completes the WordPiece of MPNet, which separates a pair as RoBERTa does; its token types are not used."""
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    ids = {token: backend.token_to_id(token) for token in (cls, sep)}
    standard = (
        _template(f"{cls}:0 $A:0 {sep}:0", f"{cls}:0 $A:0 {sep}:0 {sep}:0 $B:1 {sep}:1", list(ids.items())),
        state_of(processors.RobertaProcessing((sep, ids[sep]), (cls, ids[cls]), True, False)),
    )
    _require(state_of(backend.post_processor) in standard, "post-processor")
    _require("token_type_ids" not in settings.get("model_input_names", ()), "post-processor")  # they differ in types
    _require_mask_token(backend, tokens)
    chinese = state_of(backend.normalizer).get("handle_chinese_chars")  # transformers 4 does not read the setting
    _require(chinese == settings.get("tokenize_chinese_chars", True), "normalizer")
    _complete_word_pieces(backend, tokens, settings)


def _complete_word_pieces(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Completes the WordPiece of BERT; the normalizer follows `tokenizer_config.json`."""
    model = backend.model
    _require(type(model).__name__ == "WordPiece", "model")
    _require(
        (model.unk_token, model.continuing_subword_prefix, model.max_input_chars_per_word)
        == (tokens["unk_token"], "##", 100),
        "WordPiece model",
    )
    normalizer = state_of(backend.normalizer)
    _require(normalizer.get("type") == "BertNormalizer" and normalizer.get("clean_text") is True, "normalizer")
    _require(state_of(backend.pre_tokenizer) == {"type": "BertPreTokenizer"}, "pre-tokenizer")
    lower, strip, chinese = (
        settings.get(name, default)
        for name, default in (("do_lower_case", True), ("strip_accents", None), ("tokenize_chinese_chars", True))
    )
    if not all(isinstance(value, bool) for value in (lower, chinese)) or strip not in (None, True, False):
        raise NotStandardError("do_lower_case, strip_accents or tokenize_chinese_chars is not true or false")
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=chinese, strip_accents=strip, lowercase=lower
    )


def _require_mask_token(backend: Tokenizer, tokens: Mapping[str, str]) -> None:
    """Checks the flags of the mask token, which some releases take from the class and others from the file."""
    added = backend.get_added_tokens_decoder()
    mask = next(token for token in added.values() if token.content == tokens["mask_token"])
    _require((mask.lstrip, mask.rstrip, mask.single_word) == (True, False, False), "mask token")


def _complete_roberta(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Completes the byte-level BPE tokenizer of RoBERTa."""
    _require_mask_token(backend, tokens)
    model = backend.model
    _require(type(model).__name__ == "BPE", "model")
    _require(
        model.dropout is None
        and not (model.fuse_unk or model.byte_fallback or model.ignore_merges or model.unk_token)
        and not (model.continuing_subword_prefix or model.end_of_word_suffix),
        "BPE model",
    )
    _require(backend.normalizer is None, "normalizer")
    before = state_of(backend.pre_tokenizer)
    prefixed = bool(settings.get("add_prefix_space", False))
    _require(
        (before.get("type"), before.get("use_regex", True), before.get("add_prefix_space"))
        == ("ByteLevel", True, prefixed),
        "pre-tokenizer",
    )
    after = state_of(backend.post_processor)
    expected = {
        name: [tokens[f"{name}_token"], backend.token_to_id(tokens[f"{name}_token"])] for name in ("sep", "cls")
    }
    found = {name: after.get(name) for name in expected}
    _require(after.get("type") == "RobertaProcessing" and found == expected, "post-processor")


def _complete_byte_level(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Checks the byte-level BPE tokenizer of DeBERTa."""
    _require(type(backend.model).__name__ == "BPE" and backend.model.dropout is None, "model")
    _complete_generic(backend, tokens, settings)


def _complete_unigram(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Checks the SentencePiece unigram tokenizer of DeBERTa-v2 and v3."""
    _require(type(backend.model).__name__ == "Unigram", "model")
    _require(backend.post_processor is not None, "post-processor")


def _complete_xlm_roberta(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Checks the SentencePiece unigram tokenizer of XLM-RoBERTa and CamemBERT."""
    _require_mask_token(backend, tokens)
    _complete_unigram(backend, tokens, settings)


def _complete_generic(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Keeps any tokenizer of the library as its file describes it."""
    _require(backend.post_processor is not None, "post-processor")
    prefixed = state_of(backend.pre_tokenizer).get("add_prefix_space", settings.get("add_prefix_space", False))
    _require(prefixed == settings.get("add_prefix_space", False), "pre-tokenizer")


@dataclass(frozen=True)
class TokenizerClass:
    """Properties of a tokenizer class of transformers.

    Args:
        special_tokens: its default special tokens, by name.
        model_input_names: what it makes, unless `tokenizer_config.json` says otherwise.
        complete: checks a tokenizer read from `tokenizer.json`, and completes it as the class does.
        keeps_file: whether transformers 4 takes every part from `tokenizer.json`. transformers 5 builds some again,
            which changes token ids: DeBERTa-v3 loses its character map.
        more_special_tokens: further default special tokens.
    """

    special_tokens: Mapping[str, str]
    model_input_names: tuple[str, ...]
    complete: Callable[[Tokenizer, Mapping[str, str], Mapping[str, Any]], None]
    keeps_file: bool = False
    more_special_tokens: tuple[str, ...] = ()


_CLASSES = {
    "BertTokenizer": TokenizerClass(_BERT_TOKENS, _WITH_TYPES, _complete_bert),
    "ElectraTokenizer": TokenizerClass(_BERT_TOKENS, _WITH_TYPES, _complete_bert),
    "DistilBertTokenizer": TokenizerClass(_BERT_TOKENS, _WITHOUT_TYPES, _complete_bert),
    "MPNetTokenizer": TokenizerClass({**_ROBERTA_TOKENS, "unk_token": "[UNK]"}, _WITHOUT_TYPES, _complete_mpnet),
    "RobertaTokenizer": TokenizerClass(_ROBERTA_TOKENS, _WITHOUT_TYPES, _complete_roberta),
    "DebertaTokenizer": TokenizerClass(_DEBERTA_TOKENS, _DEBERTA_INPUTS, _complete_byte_level, keeps_file=True),
    "DebertaV2Tokenizer": TokenizerClass(_DEBERTA_TOKENS, _DEBERTA_INPUTS, _complete_unigram, keeps_file=True),
    "XLMRobertaTokenizer": TokenizerClass(_ROBERTA_TOKENS, _WITHOUT_TYPES, _complete_xlm_roberta, keeps_file=True),
    "CamembertTokenizer": TokenizerClass(
        *(_ROBERTA_TOKENS, _WITHOUT_TYPES, _complete_xlm_roberta),
        keeps_file=True,
        more_special_tokens=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"),
    ),
    **{name: TokenizerClass({}, names, _complete_generic) for name, names in GENERIC_CLASSES.items()},
}


def class_of(settings: Mapping[str, Any], family: str | None, named: str | None) -> TokenizerClass:
    """Returns the class of a tokenizer.

    Args:
        settings: contents of `tokenizer_config.json`.
        family: `model_type` of the model.
        named: the class that the model's config names.

    Raises:
        NotStandardError: it is none of those that can be read without transformers.
    """
    name = settings.get("tokenizer_class") or named or _CLASS_OF_FAMILY.get(family or "")
    found = _CLASSES.get(str(name)) or _CLASSES.get(str(name).removesuffix("Fast"))
    if found is None:
        raise NotStandardError(f"tokenizer_class={name!r}")
    return found
