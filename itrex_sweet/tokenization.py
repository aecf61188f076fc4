"""From texts to packed rows: what can be read is packed, what cannot is named."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.runtime.ragged import TokenBatch

logger = logging.getLogger(__name__)


@dataclass
class Reading:
    """Texts read.

    Args:
        batch: the readable ones, packed, in order.
        rows: their places among the caller's texts.
        errors: place → what is wrong, for the others.
    """

    batch: TokenBatch
    rows: list[int]
    errors: dict[int, str] = field(default_factory=dict)


class TextReader:
    """Tokenizes without padding.

    Args:
        tokenizer: a Hugging Face tokenizer.
        max_tokens: the model's limit, or `None`.
        uncounted_token: see `TokenBatch`.
    """

    def __init__(self, tokenizer: Any, max_tokens: int | None, uncounted_token: int | None):
        self.tokenizer = tokenizer
        self.uncounted_token = uncounted_token
        limits = [
            limit for limit in (max_tokens, tokenizer.model_max_length) if limit is not None and limit < 1_000_000
        ]
        self.limit = min(limits, default=None)

    def read(self, texts: Sequence[Any], max_length: int | None, overlong: str) -> Reading:
        """Reads texts and pairs of texts.

        Args:
            texts: strings, or pairs (tuple or list) of strings.
            max_length: tokens per row at most, if below the model's limit.
            overlong: `"truncate"` with a warning, or `"refuse"` as an error of that row.
        """
        limit = min((value for value in (self.limit, max_length) if value is not None), default=None)
        errors = {row: reason for row, text in enumerate(texts) if (reason := _unreadable(text))}
        rows = [row for row in range(len(texts)) if row not in errors]
        encoded = self._encode([texts[row] for row in rows])
        overlong_rows = (
            []
            if limit is None
            else [row for row, ids in zip(rows, encoded["input_ids"], strict=True) if len(ids) > limit]
        )
        if overlong_rows and overlong == "refuse":
            lengths = dict(zip(rows, map(len, encoded["input_ids"]), strict=True))
            errors.update({row: f"{lengths[row]} tokens, and the limit is {limit}" for row in overlong_rows})
        elif overlong_rows:
            logger.warning("%d texts have more than %d tokens and were cut.", len(overlong_rows), limit)
            cut = self._encode([texts[row] for row in overlong_rows], max_length=limit, truncation=True)
            places = {row: place for place, row in enumerate(rows)}
            for name, values in cut.items():
                for row, value in zip(overlong_rows, values, strict=True):
                    encoded[name][places[row]] = value
        kept = [place for place, row in enumerate(rows) if row not in errors]
        types = encoded.get("token_type_ids")
        batch = TokenBatch.from_rows(
            [encoded["input_ids"][place] for place in kept],
            None if types is None else [types[place] for place in kept],
            self.uncounted_token,
        )
        return Reading(batch, [rows[place] for place in kept], dict(sorted(errors.items())))

    def _encode(self, texts: list[Any], **options: Any) -> dict[str, list[list[int]]]:
        if not texts:
            return {"input_ids": []}
        singles = [place for place, text in enumerate(texts) if isinstance(text, str)]
        pairs = [place for place, text in enumerate(texts) if not isinstance(text, str)]
        encoded: dict[str, list[list[int]]] = {}
        for places, arguments in (
            (singles, ([texts[place] for place in singles],)),
            (pairs, ([texts[place][0] for place in pairs], [texts[place][1] for place in pairs])),
        ):
            if not places:
                continue
            # `verbose=False`: the tokenizer's own note on length says less than ours.
            result = self.tokenizer(*arguments, add_special_tokens=True, verbose=False, **options)
            for name in result.keys() & {"input_ids", "token_type_ids"}:
                values = encoded.setdefault(name, [[]] * len(texts))
                for place, value in zip(places, result[name], strict=True):
                    values[place] = value
        return encoded


def _unreadable(text: Any) -> str | None:
    """What is wrong with one text, if anything."""
    parts = (text,) if isinstance(text, str) else text
    if not isinstance(parts, (tuple, list)) or not all(isinstance(part, str) for part in parts):
        return f"{type(text).__name__} is not a text or a pair of texts"
    if len(parts) not in (1, 2) or (len(parts) == 1 and not isinstance(text, str)):
        return f"{len(parts)} texts; a row is one text or a pair"
    if not all(part.strip() for part in parts):
        return "the text is empty"
    return None
