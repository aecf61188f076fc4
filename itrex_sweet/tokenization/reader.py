"""Tokenizes texts and packs the rows; texts that cannot be tokenized are reported with a reason."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.defaults import REFUSE
from itrex_sweet.errors import ConfigError, SweetError
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization.encoders import Row, encoder_of
from itrex_sweet.tokenization.fast_reader import fast_reader_of
from itrex_sweet.tokenization.inputs import Text, text_or_reason

logger = logging.getLogger(__name__)

_NO_LIMIT = 1_000_000  # tokens; transformers writes 1e30 into `model_max_length` where there is no limit


@dataclass
class Reading:
    """Tokenized texts.

    Args:
        batch: the valid texts, packed, in order.
        rows: their indices among the given texts.
        errors: index of each other text → the reason.
    """

    batch: TokenBatch
    rows: Sequence[int]
    errors: dict[int, str] = field(default_factory=dict)

    def without(self, bad: dict[int, str]) -> Reading:
        """Moves rows of the batch to the errors; `bad` has their indices in the batch and the reasons."""
        if not bad:
            return self
        kept = [place for place in range(len(self.rows)) if place not in bad]
        errors = {**self.errors, **{self.rows[place]: reason for place, reason in bad.items()}}
        batch = self.batch.select(np.array(kept, dtype=np.int64))
        return Reading(batch, [self.rows[place] for place in kept], dict(sorted(errors.items())))


class TextReader:
    """Tokenizes texts without padding. Thread-safe.

    It uses a copy of a fast tokenizer, so that calls of the tokenizer elsewhere, with truncation or padding, have no
    effect here. `truncation_side` and `model_max_length` are read from the tokenizer at each call.

    Args:
        tokenizer: a tokenizer of transformers, or a `FileTokenizer`.
        max_tokens: maximum tokens per row of the model, or `None`.
        padding_idx: see `TokenBatch`.

    Attributes:
        reader_name: what tokenizes: `"native WordPiece"`, `"native byte-level BPE"`, or `"tokenizers"`, the library.
        reader_reason: why the native one does not; `None` if it does.
        max_id, max_type: largest token id and type of `pack`; `None` if unknown.
        warns_once: whether only the first call that cuts texts warns of it, as where each request is a call.
    """

    warns_once = False
    _has_warned = False

    def __init__(self, tokenizer: Any, max_tokens: int | None, padding_idx: int | None):
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.padding_idx = padding_idx
        self._encoder = encoder_of(tokenizer)
        self._fast, self.reader_reason = fast_reader_of(self._encoder)
        self.reader_name = "tokenizers" if self._fast is None else self._fast.name
        self.max_id: int | None = None if self._fast is None else self._fast.max_id
        self.max_type: int | None = None if self._fast is None else self._fast.max_type
        self._with_types = getattr(self._encoder, "with_types", True)

    @property
    def limit(self) -> int | None:
        """Maximum tokens per row: the lower limit of model and tokenizer; `None` for no limit."""
        own, model = getattr(self.tokenizer, "model_max_length", None), self.max_tokens
        if own is None or own >= _NO_LIMIT:
            return model
        return int(own) if model is None or own < model else model

    def pack(self, texts: Sequence[Any], max_length: int | None = None) -> TokenBatch | None:
        """Tokenizes texts that need no further attention: the short way for `read`.

        Args:
            texts: strings and tuples of two strings.
            max_length: as of `read`, checked.

        Returns:
            the rows; `None` if `read` has to be called: for a text that is blank, longer than the limit or no string,
            or a tokenizer without a fast reader.
        """
        if self._fast is None:
            return None
        limit = self.limit
        if max_length is not None and (limit is None or max_length < limit):
            limit = max_length
        if limit is not None and limit <= self._fast.most_special_tokens:
            return None
        packed = self._fast.pack(texts, limit, False, self.padding_idx)
        return None if packed is None or packed[2] else self._without_types(packed[0])

    def read(self, texts: Sequence[Any], max_length: int | None, overlong: str) -> Reading:
        """Tokenizes texts and pairs of texts.

        Args:
            texts: elements as of `inputs.text_or_reason`.
            max_length: maximum tokens per row, special tokens included, if below the model's limit.
            overlong: `"truncate"` with a warning, or `"refuse"` as an error of that row.

        Raises:
            ConfigError: `max_length` is not a positive integer, or leaves no room beside the special tokens.
        """
        if max_length is not None:
            max_length = whole_number("max_length", max_length, minimum=1)
        if isinstance(texts, list) and (batch := self.pack(texts, max_length)) is not None:
            return Reading(batch, range(len(texts)))
        limit = min((value for value in (self.limit, max_length) if value is not None), default=None)
        errors: dict[int, str] = {}
        rows: list[int] = []
        readable: list[Text] = []
        for place, given in enumerate(texts):
            text, reason = text_or_reason(given)
            if text is None:
                errors[place] = reason
            else:
                rows.append(place)
                readable.append(text)
        if limit is not None:
            self._refuse_too_short(limit, readable)
        if (packed := self._packed(readable, limit, overlong)) is not None:
            return Reading(packed, rows, dict(sorted(errors.items())))
        encoded = self._encoded(readable, limit)
        cut = 0
        kept: list[tuple[int, Row]] = []
        for place, row in zip(rows, encoded, strict=True):
            if isinstance(row, str):
                errors[place] = row
            elif not row.ids:
                errors[place] = "the tokenizer makes no tokens of it"
            elif limit is not None and row.length > limit and overlong == REFUSE:
                errors[place] = f"{row.length} tokens, and the limit is {limit}"
            else:
                kept.append((place, row))
                cut += row.length > len(row.ids)
        self._warn_of_cut(cut, limit)
        types = [row.types or [0] * len(row.ids) for _, row in kept] if any(row.types for _, row in kept) else None
        batch = TokenBatch.from_rows([row.ids for _, row in kept], types, self.padding_idx)
        return Reading(batch, [place for place, _ in kept], dict(sorted(errors.items())))

    def _packed(self, texts: list[Text], limit: int | None, overlong: str) -> TokenBatch | None:
        """Returns the rows of texts, by the fast reader; `None` if it cannot read them all, or one is refused."""
        if self._fast is None or not texts:
            return None
        from_left = getattr(self.tokenizer, "truncation_side", "right") == "left"
        packed = self._fast.pack(texts, limit, from_left, self.padding_idx, allow_empty=True)
        if packed is None:
            return None
        batch, _, cut = packed
        if (cut and overlong == REFUSE) or not np.diff(batch.cu_seqlens).all():
            return None
        self._warn_of_cut(cut, limit)
        return self._without_types(batch)

    def _without_types(self, batch: TokenBatch) -> TokenBatch:
        """Returns the rows without token types if the tokenizer gives the model none."""
        if self._with_types or batch.given_types is None:
            return batch
        return TokenBatch(batch.input_ids, None, batch.given_positions, batch.cu_seqlens)

    def _warn_of_cut(self, cut: int, limit: int | None) -> None:
        if not cut or (self.warns_once and self._has_warned):
            return
        self._has_warned = True
        rest = " Further ones are cut without a warning." if self.warns_once else ""
        logger.warning("Cut %d %s of more than %d tokens.%s", cut, "text" if cut == 1 else "texts", limit, rest)

    def _refuse_too_short(self, limit: int, texts: list[Text]) -> None:
        special = self._encoder.special_tokens(any(isinstance(text, tuple) for text in texts))
        if limit <= special:
            raise ConfigError(
                f"max_length={limit}: {special} tokens of every row are special ones, so it takes {special + 1} to "
                "hold any text."
            )

    def _encoded(self, texts: list[Text], limit: int | None) -> list[Row | str]:
        """Returns a row for each text, or the reason why the tokenizer fails."""
        if not texts:
            return []
        try:
            return list(self._encoder.encode(texts, limit))
        except BaseException as error:
            # A panic of a tokenizer written in Rust is no `Exception`.
            ours = isinstance(error, (SweetError, MemoryError))
            if ours or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
                raise
            if len(texts) == 1:
                return [f"the tokenizer fails at it ({type(error).__name__}: {error})"]
        middle = len(texts) // 2
        return self._encoded(texts[:middle], limit) + self._encoded(texts[middle:], limit)
