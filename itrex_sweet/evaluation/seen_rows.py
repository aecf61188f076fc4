"""Which rows a model has seen before: in training, in choosing among its versions, in calibration or in a report."""

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

# Roles in which rows had a part in what the model became; figures on them are better than on others.
SPOILING = (TRAINING, SELECTION, QUANTIZATION, CALIBRATION)
_UNLIMITED = 1_000_000  # tokens


@dataclass(frozen=True)
class SeenRows:
    """Some rows, and the roles in which a model has seen them.

    Args:
        known: role → (rows,) bool, whether each is known to be one of that role's rows.
        shares: role → share of the rows that are; above the mean of `known` where the role's rows were too many to
            record them all, so that the share is an estimate.
        rows: compared.
    """

    known: Mapping[str, np.ndarray]
    shares: Mapping[str, float]
    rows: int

    def any_of(self, roles: Sequence[str]) -> np.ndarray:
        """(rows,) bool: whether each is known to be of any of some roles."""
        masks = [mask for role, mask in self.known.items() if role in roles]
        return np.logical_or.reduce([np.zeros(self.rows, dtype=bool), *masks])

    def unknown_share(self, roles: Sequence[str]) -> float:
        """Share of the rows that are of one of some roles without being known one by one; an estimate."""
        gaps = [share - float(self.known[role].mean()) for role, share in self.shares.items() if role in roles]
        return max(gaps, default=0.0)


def seen_rows(
    model: SweetModelForSequenceClassification, batch: TokenBatch, texts: Sequence[Any] | None = None
) -> SeenRows:
    """Compares rows with those that a model's artifact records.

    With their texts, rows are recognized where the record was made with another `max_length`, where the order of a
    pair is reversed, and where they differ from the recorded ones in white space or in upper case alone.

    Args:
        batch: the rows, as the model reads them.
        texts: of the rows; without, only equal token ids are recognized.
    """
    found = {
        role: _looked_up(model, batch, texts, recorded)
        for role, recorded in model.artifact.fingerprints().items()
        if recorded.rows and len(batch)
    }
    return SeenRows(
        {role: known for role, (known, share) in found.items() if share > 0.0},
        {role: share for role, (known, share) in found.items() if share > 0.0},
        len(batch),
    )


def _looked_up(
    model: SweetModelForSequenceClassification,
    batch: TokenBatch,
    texts: Sequence[Any] | None,
    recorded: Fingerprints,
) -> tuple[np.ndarray, float]:
    """(rows,) bool and the estimated share."""
    rows = batch.rows()
    known, share = recorded.holds(rows), recorded.share_held(rows)
    if texts is None or model.tokenizer is None:
        return known, share
    encoder = encoder_of(model.tokenizer)
    longest = recorded.longest if encoder.special_tokens(pair=True) < recorded.longest < _UNLIMITED else None
    turned = [_reversed(text) for text in texts]
    texts = [text if isinstance(text, str) else tuple(text) for text in texts]
    forms = [[_lower(text) for text in texts], turned, [None if text is None else _lower(text) for text in turned]]
    if longest is not None and longest != int(batch.lengths.max()):
        forms.append(list(texts))
    for form in forms:
        places = [place for place, text in enumerate(form) if not known[place] and text is not None]
        if not places:
            continue
        again = [row.ids for row in encoder.encode([form[place] for place in places], longest)]
        known[places] |= recorded.holds(again)
        share = max(share, len(places) / len(rows) * recorded.share_held(again))
    return known, max(share, float(known.mean()))


def _lower(text: Any) -> Any:
    """A text or pair in lower case, white space collapsed; `None` where it is written so."""
    parts = (text,) if isinstance(text, str) else tuple(text)
    plain = tuple(" ".join(part.split()).lower() for part in parts)
    if plain == parts:
        return None
    return plain[0] if isinstance(text, str) else plain


def _reversed(text: Any) -> Any:
    """A pair in the other order; `None` for a single text."""
    return None if isinstance(text, str) else tuple(text)[::-1]
