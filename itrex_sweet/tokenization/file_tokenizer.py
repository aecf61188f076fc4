"""A fast tokenizer read from `tokenizer.json` by the `tokenizers` library, without transformers.

transformers builds some tokenizers again from parts of the file and from `tokenizer_config.json`, each release in its
own way. `file_tokenizer` therefore takes a tokenizer only where the file says what transformers made when it saved the
file, so that the token ids are those of training, and raises `NotStandardError` for every other one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer

from itrex_sweet.tokenization.parts import state_of
from itrex_sweet.tokenization.tokenizer_classes import TOKENIZER_FILE, NotStandardError, class_of

SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE = "special_tokens_map.json", "added_tokens.json"
NO_LIMIT = 10**30  # of `model_max_length`, as transformers writes it

_SPECIAL_TOKENS = ("bos_token", "eos_token", "sep_token", "cls_token", "unk_token", "pad_token", "mask_token")
_MORE_SPECIAL_TOKENS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")

# Settings that are read, and those that change no token id of any class in `tokenizer_classes`.
_READ = (
    *("tokenizer_class", "model_max_length", "truncation_side", "model_input_names", "split_special_tokens"),
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "added_tokens_decoder"),
    *(*_SPECIAL_TOKENS, *_MORE_SPECIAL_TOKENS),
)
_WITHOUT_EFFECT = (
    *("backend", "chat_template", "clean_up_tokenization_spaces", "do_basic_tokenize", "errors", "is_local"),
    *("local_files_only", "max_length", "name_or_path", "never_split", "pad_to_multiple_of", "pad_token_type_id"),
    *("padding_side", "processor_class", "sp_model_kwargs", "split_by_punct", "stride"),
    *("transformers_version", "trim_offsets", "truncation_strategy", "unk_id", "use_fast", "vocab_type"),
)


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
    kind = class_of(settings, family, tokenizer_class)
    _check_added_tokens(backend, files, settings)
    tokens = {**kind.special_tokens, **{key: _text(settings[key]) for key in _SPECIAL_TOKENS if key in settings}}
    _check_special_tokens(backend, tokens, kind.more_special_tokens, settings)
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


def _check_special_tokens(
    backend: Tokenizer, tokens: Mapping[str, Any], defaults: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Checks that `tokenizer.json` holds every special token: transformers adds those that it lacks."""
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    more = [token for name in _MORE_SPECIAL_TOKENS for token in _listed(settings.get(name) or [])] or defaults
    described = [settings[name] for name in _SPECIAL_TOKENS if isinstance(settings.get(name), Mapping)]
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
