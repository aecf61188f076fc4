"""Tokenizes texts and packs the rows; texts that cannot be tokenized are reported with a reason."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.errors import ConfigError, SweetError
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization.encoders import Row, encoder_of
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
    rows: list[int]
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
    """

    def __init__(self, tokenizer: Any, max_tokens: int | None, padding_idx: int | None):
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.padding_idx = padding_idx
        self._encoder = encoder_of(tokenizer)

    @property
    def limit(self) -> int | None:
        """Maximum tokens per row: the lower limit of model and tokenizer; `None` for no limit."""
        limits = (self.max_tokens, getattr(self.tokenizer, "model_max_length", None))
        return min((int(limit) for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)

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
        encoded = self._encoded(readable, limit)
        cut = 0
        kept: list[tuple[int, Row]] = []
        for place, row in zip(rows, encoded, strict=True):
            if isinstance(row, str):
                errors[place] = row
            elif not row.ids:
                errors[place] = "the tokenizer makes no tokens of it"
            elif limit is not None and row.length > limit and overlong == "refuse":
                errors[place] = f"{row.length} tokens, and the limit is {limit}"
            else:
                kept.append((place, row))
                cut += row.length > len(row.ids)
        if cut:
            logger.warning("%d texts have more than %d tokens and were cut.", cut, limit)
        types = [row.types or [0] * len(row.ids) for _, row in kept] if any(row.types for _, row in kept) else None
        batch = TokenBatch.from_rows([row.ids for _, row in kept], types, self.padding_idx)
        return Reading(batch, [place for place, _ in kept], dict(sorted(errors.items())))

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
