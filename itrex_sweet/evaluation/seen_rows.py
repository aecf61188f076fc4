"""Detects data leakage: rows that a model has seen in training, selection, quantization, calibration or reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.artifact.fingerprints import CALIBRATION, QUANTIZATION, SELECTION, TRAINING, Fingerprints
from itrex_sweet.tokenization.encoders import encoder_of

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification
    from itrex_sweet.runtime.ragged import TokenBatch

# Roles of rows that influenced the model or its policy; scores on them are not held-out scores.
NOT_HELD_OUT = (TRAINING, SELECTION, QUANTIZATION, CALIBRATION)
_UNLIMITED = 1_000_000  # tokens


@dataclass(frozen=True)
class SeenRows:
    """The roles in which a model has seen some rows.

    Args:
        known: role → (rows,) bool, true for rows recorded in that role.
        shares: role → fraction of the rows seen in that role. It is an estimate above the mean of `known` if the
            role had too many rows to record all of them.
        rows: number of rows.
    """

    known: Mapping[str, np.ndarray]
    shares: Mapping[str, float]
    rows: int

    def any_of(self, roles: Sequence[str]) -> np.ndarray:
        """Returns (rows,) bool, true for rows recorded in any of the roles."""
        masks = [mask for role, mask in self.known.items() if role in roles]
        return np.logical_or.reduce([np.zeros(self.rows, dtype=bool), *masks])

    def unknown_share(self, roles: Sequence[str]) -> float:
        """Returns the estimated fraction of rows that were seen in one of the roles but are not recorded."""
        gaps = [share - float(self.known[role].mean()) for role, share in self.shares.items() if role in roles]
        return max(gaps, default=0.0)


def seen_rows(
    model: SweetModelForSequenceClassification, batch: TokenBatch, texts: Sequence[Any] | None = None
) -> SeenRows:
    """Compares rows with the fingerprints that a model's artifact records.

    With texts, rows are also recognized if they were recorded with another `max_length`, if the order of a pair is
    reversed, or if they differ only in white space or case.

    Args:
        batch: tokenized rows.
        texts: of the rows; without them, only rows with equal token ids are recognized.
    """
    found = {
        role: _lookup(model, batch, texts, recorded)
        for role, recorded in model.artifact.fingerprints().items()
        if recorded.rows and len(batch)
    }
    return SeenRows(
        {role: known for role, (known, share) in found.items() if share > 0.0},
        {role: share for role, (known, share) in found.items() if share > 0.0},
        len(batch),
    )


def _lookup(
    model: SweetModelForSequenceClassification,
    batch: TokenBatch,
    texts: Sequence[Any] | None,
    recorded: Fingerprints,
) -> tuple[np.ndarray, float]:
    """Returns the rows recorded, (rows,) bool, and the estimated fraction of rows seen."""
    rows = batch.rows()
    known, share = recorded.contains(rows), recorded.share_of(rows)
    if texts is None or model.tokenizer is None:
        return known, share
    encoder = encoder_of(model.tokenizer)
    longest = recorded.longest if encoder.special_tokens(pair=True) < recorded.longest < _UNLIMITED else None
    reversed_texts = [_reverse_pair(text) for text in texts]
    texts = [text if isinstance(text, str) else tuple(text) for text in texts]
    forms = [
        [_normalize(text) for text in texts],
        reversed_texts,
        [None if text is None else _normalize(text) for text in reversed_texts],
    ]
    if longest is not None and longest != int(batch.lengths.max()):
        forms.append(list(texts))
    for form in forms:
        unknown = [index for index, text in enumerate(form) if not known[index] and text is not None]
        if not unknown:
            continue
        token_ids = [row.ids for row in encoder.encode([form[index] for index in unknown], longest)]
        known[unknown] |= recorded.contains(token_ids)
        share = max(share, len(unknown) / len(rows) * recorded.share_of(token_ids))
    return known, max(share, float(known.mean()))


def _normalize(text: Any) -> Any:
    """Returns a text or pair in lower case with collapsed white space; `None` if that changes nothing."""
    parts = (text,) if isinstance(text, str) else tuple(text)
    plain = tuple(" ".join(part.split()).lower() for part in parts)
    if plain == parts:
        return None
    return plain[0] if isinstance(text, str) else plain


def _reverse_pair(text: Any) -> Any:
    """Returns a pair in reversed order; `None` for a single text."""
    return None if isinstance(text, str) else tuple(text)[::-1]
