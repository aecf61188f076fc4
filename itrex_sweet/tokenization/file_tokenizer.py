"""A fast tokenizer read from `tokenizer.json` by the `tokenizers` library, without transformers.

transformers builds some tokenizers again from parts of the file and from `tokenizer_config.json`, each release in its
own way. `file_tokenizer` therefore takes a tokenizer only where the file says the same as what transformers makes of
it, so that both give the same token ids, and raises `NotStandardError` for every other one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, processors

TOKENIZER_FILE, SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
NO_LIMIT = 10**30  # of `model_max_length`, as transformers writes it

_WITH_TYPES, _WITHOUT_TYPES = ("input_ids", "token_type_ids", "attention_mask"), ("input_ids", "attention_mask")
# Classes for any tokenizer of the library, as transformers 4 and 5 name them when they save one -> the inputs that the
# same release makes, unless `tokenizer_config.json` says otherwise.
GENERIC_CLASSES = {"PreTrainedTokenizerFast": _WITH_TYPES, "TokenizersBackend": _WITHOUT_TYPES}

# model_type of a config → its tokenizer, where no file names one
_TOKENIZER_OF_FAMILY = {
    "bert": "BertTokenizer",
    "electra": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
_BERT_TOKENS = {
    **{"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
    **{"cls_token": "[CLS]", "mask_token": "[MASK]"},
}
_ROBERTA_TOKENS = {
    **{"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
_SPECIAL_TOKENS = (*_ROBERTA_TOKENS, "additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")

# Settings that `_build` reads, and those that change no token id.
_READ = (
    *("tokenizer_class", "model_max_length", "truncation_side", "model_input_names", "split_special_tokens"),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "added_tokens_decoder"),
    *_SPECIAL_TOKENS,
)
_WITHOUT_EFFECT = (
    *("backend", "chat_template", "clean_up_tokenization_spaces", "do_basic_tokenize", "errors", "is_local"),
    *("local_files_only", "max_length", "name_or_path", "never_split", "pad_to_multiple_of", "pad_token_type_id"),
    *("padding_side", "processor_class", "sp_model_kwargs", "stride", "transformers_version", "trim_offsets"),
    *("truncation_strategy", "use_fast"),
)


class NotStandardError(Exception):
    """A tokenizer that only transformers can load; the message gives the reason."""


@dataclass(frozen=True)
class FileTokenizer:
    """A fast tokenizer and the settings that decide how texts are read by it.

    Args:
        backend: encodes texts, without truncation and padding; used by this object only.
        model_input_names: what it makes; token types only if `"token_type_ids"` is among them.
        truncation_side: `"right"` or `"left"`, where long texts are cut.
        model_max_length: tokens per row at most; very large for no limit.
        split_special_tokens: whether special tokens written in a text are read as text.
    """

    backend: Tokenizer
    model_input_names: tuple[str, ...] = ("input_ids", "token_type_ids", "attention_mask")
    truncation_side: str = "right"
    model_max_length: int = NO_LIMIT
    split_special_tokens: bool = False

    def __call__(self, text: str, text_pair: str | None = None, **_: Any) -> dict[str, list[int]]:
        """Encodes a text or a pair, uncut, as a tokenizer of transformers does."""
        encoding = self.backend.encode(text, text_pair)
        types = {"token_type_ids": encoding.type_ids} if "token_type_ids" in self.model_input_names else {}
        return {"input_ids": encoding.ids, **types}

    def get_vocab(self) -> dict[str, int]:
        """Returns the id of each token, added ones included."""
        if type(self.backend.model).__name__ not in ("WordPiece", "BPE"):
            return self.backend.get_vocab()
        added = self.backend.get_added_tokens_decoder()
        return {**self.model_state["vocab"], **{token.content: place for place, token in added.items()}}

    @cached_property
    def model_state(self) -> dict[str, Any]:
        """The model as the library writes it, with its vocabulary; faster than to ask the library for that."""
        return state_of(self.backend.model)

    def take_model_state(self) -> dict[str, Any]:
        """Returns `model_state`, and does not keep it."""
        state = self.model_state
        vars(self).pop("model_state", None)
        return state

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens."""
        return [place for place, token in self.backend.get_added_tokens_decoder().items() if token.special]


def file_tokenizer(
    files: Mapping[str, bytes], settings: Mapping[str, Any], family: str | None, tokenizer_class: str | None
) -> FileTokenizer:
    """Makes a tokenizer of the contents of its files.

    Args:
        files: contents by name, `tokenizer.json` among them.
        settings: contents of `tokenizer_config.json`, checked.
        family: `model_type` of the model.
        tokenizer_class: that the model's config names.

    Raises:
        NotStandardError: transformers may read the files in another way.
        Exception: of the `tokenizers` library, for a damaged file.
    """
    if TOKENIZER_FILE not in files:
        raise NotStandardError(f"there is no {TOKENIZER_FILE}")
    settings = _with_special_tokens_map(files, settings)
    if unknown := sorted(settings.keys() - {*_READ, *_WITHOUT_EFFECT}):
        raise NotStandardError(f"tokenizer_config.json sets {', '.join(unknown)}")
    backend = Tokenizer.from_str(files[TOKENIZER_FILE].decode())
    name = settings.get("tokenizer_class") or tokenizer_class or _TOKENIZER_OF_FAMILY.get(family or "")
    kind = _KINDS.get(str(name)) or _KINDS.get(str(name).removesuffix("Fast"))
    if kind is None:
        raise NotStandardError(f"tokenizer_class={name!r}")
    _check_added_tokens(backend, files, settings)
    tokens = {**kind.special_tokens, **{key: _text(settings[key]) for key in _ROBERTA_TOKENS if key in settings}}
    _check_special_tokens(backend, tokens, settings)
    kind.complete(backend, tokens, settings)
    side = (backend.truncation or {}).get("direction", "right")
    names = settings.get("model_input_names", kind.model_input_names)
    if not isinstance(names, (list, tuple)):
        raise NotStandardError(f"model_input_names={names!r}")
    length = settings.get("model_max_length")
    backend.no_truncation()
    backend.no_padding()
    split = bool(settings.get("split_special_tokens", False))
    backend.encode_special_tokens = split
    return FileTokenizer(
        backend, tuple(names), settings.get("truncation_side", side), NO_LIMIT if length is None else length, split
    )


# ---------------------------------------------------------------------------------------------------- special tokens


def _with_special_tokens_map(files: Mapping[str, bytes], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with the tokens of `special_tokens_map.json`, which older releases write separately."""
    merged = dict(settings)
    if SPECIAL_TOKENS_FILE not in files:
        return merged
    for name, token in _object(files[SPECIAL_TOKENS_FILE], SPECIAL_TOKENS_FILE).items():
        if name in merged and _text(merged[name]) != _text(token):
            raise NotStandardError(f"{SPECIAL_TOKENS_FILE} and tokenizer_config.json differ in {name}")
        merged.setdefault(name, token)
    return merged


def _check_added_tokens(backend: Tokenizer, files: Mapping[str, bytes], settings: Mapping[str, Any]) -> None:
    """Checks that every token of the other files is in `tokenizer.json`, with the same id and flags."""
    own = backend.get_added_tokens_decoder()
    size = backend.get_vocab_size(with_added_tokens=False)
    beyond = sorted(place for place in own if place >= size)
    if beyond != list(range(size, size + len(beyond))):
        raise NotStandardError("the ids of added tokens have gaps")
    for token, place in _object(files.get(ADDED_TOKENS_FILE, b"{}"), ADDED_TOKENS_FILE).items():
        if backend.token_to_id(token) != place or place not in own:
            raise NotStandardError(f"{ADDED_TOKENS_FILE} and {TOKENIZER_FILE} differ in {token!r}")
    recorded = settings.get("added_tokens_decoder") or {}
    if not isinstance(recorded, Mapping):
        raise NotStandardError("added_tokens_decoder is no object")
    for place, described in recorded.items():
        token = own.get(int(place)) if str(place).isdigit() else None
        if token is None or not _is_same(token, described) or token.special != described.get("special", False):
            raise NotStandardError(f"added_tokens_decoder and {TOKENIZER_FILE} differ in id {place}")


def _check_special_tokens(backend: Tokenizer, tokens: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Checks that `tokenizer.json` holds every special token: transformers adds those that it lacks."""
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    more = [
        token
        for name in ("additional_special_tokens", "extra_special_tokens")
        for token in _listed(settings.get(name) or [])
    ]
    described = [settings[name] for name in _ROBERTA_TOKENS if isinstance(settings.get(name), Mapping)]
    for token in [*filter(None, tokens.values()), *map(_text, more)]:
        if token not in added or not added[token].special:
            raise NotStandardError(f"{TOKENIZER_FILE} has no special token {token!r}")
    for token in [*described, *(token for token in more if isinstance(token, Mapping))]:
        if not _is_same(added[_text(token)], token):
            raise NotStandardError(f"{TOKENIZER_FILE} holds {_text(token)!r} with other flags")


def _is_same(token: AddedToken, described: Any) -> bool:
    return (
        isinstance(described, Mapping)
        and described.get("content") == token.content
        and all(described.get(flag, getattr(token, flag)) == getattr(token, flag) for flag in _FLAGS)
    )


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, Mapping) else token


def _listed(tokens: Any) -> list[Any]:
    if not isinstance(tokens, (list, tuple)):
        raise NotStandardError("special tokens with names of their own")
    return list(tokens)


def _object(contents: bytes, file: str) -> dict[str, Any]:
    found = json.loads(contents)
    if not isinstance(found, dict):
        raise NotStandardError(f"{file} is no object")
    return found


# ---------------------------------------------------------------------------------------------------- classes


def state_of(part: Any) -> dict[str, Any]:
    """Returns a part of a tokenizer as the library writes it; empty if there is none."""
    return {} if part is None else json.loads(part.__getstate__())


def parts_of(state: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Returns the parts of a sequence that a part of a tokenizer may be, in order; `name`: of its list."""
    if state.get("type") != "Sequence":
        return [state] if state else []
    return [part for each in state[name] for part in parts_of(each, name)]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise NotStandardError(f"{TOKENIZER_FILE} has another {what} than its class makes")


def _template(single: str, pair: str, tokens: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return state_of(processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(tokens)))


def _complete_bert(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Completes the WordPiece of BERT, DistilBERT and ELECTRA; the normalizer follows `tokenizer_config.json`."""
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
    cls, sep = tokens["cls_token"], tokens["sep_token"]
    ids = {token: backend.token_to_id(token) for token in (cls, sep)}
    standard = (
        _template(f"{cls}:0 $A:0 {sep}:0", f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", list(ids.items())),
        state_of(processors.BertProcessing((sep, ids[sep]), (cls, ids[cls]))),
    )
    _require(state_of(backend.post_processor) in standard, "post-processor")
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


def _complete_xlm_roberta(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Completes the SentencePiece unigram tokenizer of XLM-RoBERTa."""
    _require_mask_token(backend, tokens)
    _require(type(backend.model).__name__ == "Unigram", "model")
    # The library does not tell the id; no vocabulary holds this character, which Unicode leaves unassigned for ever.
    _require([token.id for token in backend.model.tokenize("\U0010ffff")] == [3], "id of the unknown token")
    _require(state_of(backend.normalizer).get("type", "Precompiled") == "Precompiled", "normalizer")
    words = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    parts = state_of(backend.pre_tokenizer).get("pretokenizers")
    _require(parts == [{"type": "WhitespaceSplit"}, words], "pre-tokenizer")
    _require(settings.get("add_prefix_space", True) is True, "pre-tokenizer")
    bos, eos = tokens["bos_token"], tokens["eos_token"]
    ids = [(token, backend.token_to_id(token)) for token in (bos, eos)]
    standard = _template(f"{bos} $A {eos}", f"{bos} $A {eos} {eos} $B {eos}", ids)
    _require(state_of(backend.post_processor) == standard, "post-processor")


def _complete_generic(backend: Tokenizer, tokens: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Keeps any tokenizer of the library as its file describes it."""
    _require(backend.post_processor is not None, "post-processor")
    prefixed = state_of(backend.pre_tokenizer).get("add_prefix_space", settings.get("add_prefix_space", False))
    _require(prefixed == settings.get("add_prefix_space", False), "pre-tokenizer")


@dataclass(frozen=True)
class _Kind:
    """Properties of a tokenizer class of transformers: default special tokens, inputs, and further checks."""

    special_tokens: Mapping[str, str]
    model_input_names: tuple[str, ...]
    complete: Any


_KINDS = {
    "BertTokenizer": _Kind(_BERT_TOKENS, _WITH_TYPES, _complete_bert),
    "ElectraTokenizer": _Kind(_BERT_TOKENS, _WITH_TYPES, _complete_bert),
    "DistilBertTokenizer": _Kind(_BERT_TOKENS, _WITHOUT_TYPES, _complete_bert),
    "RobertaTokenizer": _Kind(_ROBERTA_TOKENS, _WITHOUT_TYPES, _complete_roberta),
    "XLMRobertaTokenizer": _Kind(_ROBERTA_TOKENS, _WITHOUT_TYPES, _complete_xlm_roberta),
    **{name: _Kind({}, names, _complete_generic) for name, names in GENERIC_CLASSES.items()},
}
