"""Thread-safe tokenization with a Hugging Face tokenizer.

A fast tokenizer stores truncation and padding settings, and each call changes them, so that threads that share a
tokenizer would affect each other. A fast tokenizer is therefore copied, the copy never truncates, and rows are
truncated here.
"""

from __future__ import annotations

import copy
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.tokenization.file_tokenizer import FileTokenizer
from itrex_sweet.tokenization.inputs import Text
from itrex_sweet.tokenization.parts import parts_of, state_of


@dataclass(frozen=True)
class Row:
    """Tokens of one text.

    Args:
        ids: token ids after truncation.
        types: token types; `None` if the tokenizer returns none.
        length: number of tokens before truncation.
    """

    ids: list[int]
    types: list[int] | None
    length: int


class TextEncoder(ABC):
    """Encodes texts to token ids. Thread-safe."""

    @abstractmethod
    def encode(self, texts: Sequence[Text], limit: int | None) -> list[Row]:
        """Encodes texts, special tokens included, without padding.

        Args:
            texts: strings, or pairs of strings.
            limit: maximum tokens per row; longer texts are truncated as by `truncation="longest_first"`.
        """

    @abstractmethod
    def special_tokens(self, pair: bool) -> int:
        """Returns the number of special tokens that are added to a text or a pair."""


def encoder_of(tokenizer: Any) -> TextEncoder:
    """Returns the encoder that suits a tokenizer."""
    if isinstance(tokenizer, FileTokenizer):
        return FastEncoder(tokenizer, tokenizer.backend)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and not _calls_overridden(tokenizer):
        try:
            return FastEncoder(tokenizer, copy.deepcopy(backend))
        except Exception:  # parts written in Python cannot be copied
            pass
    return LockedEncoder(tokenizer)


class FastEncoder(TextEncoder):
    """Encodes with a private copy of a fast tokenizer's backend.

    Args:
        tokenizer: a `PreTrainedTokenizerFast` or a `FileTokenizer`, whose settings are read.
        backend: a private copy of its `tokenizers.Tokenizer`.
    """

    def __init__(self, tokenizer: Any, backend: Any):
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
        self._tokenizer, self._backend = tokenizer, backend
        self.with_types = "token_type_ids" in tokenizer.model_input_names
        # Offsets are not needed. Without a post-processor, `encode_batch_fast` gives both texts of a pair the type 0,
        # unlike `encode_batch`.
        is_processed = backend.post_processor is not None
        self._encode_batch = backend.encode_batch_fast if is_processed else backend.encode_batch

    @property
    def backend(self) -> Any:
        """The private `tokenizers.Tokenizer`; it is not to be changed."""
        return self._backend

    @property
    def take_model_state(self) -> Callable[[], dict[str, Any]] | None:
        """Returns the model as the library writes it; `None` for a tokenizer of transformers."""
        return self._tokenizer.take_model_state if isinstance(self._tokenizer, FileTokenizer) else None

    @property
    def cuts_from_left(self) -> bool:
        """`True` if long texts are cut at their start."""
        return self._tokenizer.truncation_side == "left"

    def special_tokens(self, pair: bool) -> int:
        return self._backend.num_special_tokens_to_add(pair)

    def encode(self, texts: Sequence[Text], limit: int | None) -> list[Row]:
        return [self._row(encoding, limit) for encoding in self._encode_batch(list(texts))]

    def encode_here(self, text: Text, limit: int | None) -> Row:
        """Encodes one text in this thread, without the library's threads, which forks would have to respect."""
        return self._row(self._backend.encode(*(text if isinstance(text, tuple) else (text,))), limit)

    @property
    def maps_clusters(self) -> bool:
        """`True` if a normalizer replaces grapheme clusters."""
        normalizers = parts_of(state_of(self._backend.normalizer), "normalizers")
        return any(part["type"] == "Precompiled" for part in normalizers)

    def normalize(self, text: str) -> str:
        """Returns the normal form of a text."""
        normalizer = self._backend.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def words(self, text: str) -> list[str]:
        """Splits a normalized text into words."""
        pre_tokenizer = self._backend.pre_tokenizer
        pieces = [] if pre_tokenizer is None else pre_tokenizer.pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in pieces]

    def added_tokens(self) -> list[Any]:
        """Returns the added tokens, special ones among them: objects of the library."""
        return list(self._backend.get_added_tokens_decoder().values())

    def _row(self, encoding: Any, limit: int | None) -> Row:
        ids, types = encoding.ids, encoding.type_ids if self.with_types else None
        length = len(ids)
        if limit is not None and length > limit:
            kept = self._kept(encoding.sequence_ids, limit, self.cuts_from_left)
            ids = [ids[place] for place in kept]
            types = None if types is None else [types[place] for place in kept]
        return Row(ids, types, length)

    @staticmethod
    def _kept(sequences: list[int | None], limit: int, from_left: bool) -> list[int]:
        """Returns the indices of the tokens to keep; `sequences`: index of each token's text, `None` for special
        tokens."""
        places = [[place for place, sequence in enumerate(sequences) if sequence == which] for which in (0, 1)]
        length = limit - sequences.count(None)
        dropped: set[int] = set()
        for own, count in zip(places, longest_first(*map(len, places), length), strict=True):
            dropped.update(own[: len(own) - count] if from_left else own[count:])
        return [place for place in range(len(sequences)) if place not in dropped]


class LockedEncoder(TextEncoder):
    """Encodes with the tokenizer itself under a lock: for slow tokenizers, and fast ones that cannot be copied."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    def special_tokens(self, pair: bool) -> int:
        with _lock:
            return self._tokenizer.num_special_tokens_to_add(pair)

    def encode(self, texts: Sequence[Text], limit: int | None) -> list[Row]:
        with _lock:
            return [self._row(text, limit) for text in texts]

    def _row(self, text: Text, limit: int | None) -> Row:
        whole = self._called(text, truncation=False)
        length = len(whole["input_ids"])
        if limit is not None and length > limit:
            whole = self._called(text, truncation="longest_first", max_length=limit)
        return Row(whole["input_ids"], whole.get("token_type_ids"), length)

    def _called(self, text: Text, **options: Any) -> Any:
        parts = text if isinstance(text, tuple) else (text,)
        # `verbose=False`: the tokenizer's own note on length says less than ours.
        return self._tokenizer(*parts, add_special_tokens=True, padding=False, verbose=False, **options)


def longest_first(first: int, second: int, length: int) -> tuple[int, int]:
    """Returns the number of tokens of each text after a pair is truncated to `length` tokens, by the rule of fast
    tokenizers."""
    if first + second <= length:
        return first, second
    if not second:
        return length, 0
    shorter, longer = sorted((first, second))
    longer = max(shorter, length - shorter)
    if shorter + longer > length:
        shorter = length // 2
        longer = shorter + length % 2
    return (shorter, longer) if first <= second else (longer, shorter)


def _calls_overridden(tokenizer: Any) -> bool:
    """Returns whether a class outside transformers overrides the encoding of texts."""
    names = {"__call__", "_encode_plus", "_batch_encode_plus", "encode_plus", "batch_encode_plus"}
    return any(
        names & vars(each).keys()
        for each in type(tokenizer).__mro__
        if each is not object and not each.__module__.startswith("transformers.")
    )


# Slow tokenizers hold the GIL, so one lock for all of them costs nothing.
_lock = threading.Lock()


def _new_lock() -> None:
    """Replaces the lock in a forked child: another thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
