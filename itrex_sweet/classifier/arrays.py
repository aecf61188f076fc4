"""Answers of `predict` as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from itrex_sweet.classifier.predictions import NOT_FINITE, exit_layers, labels_and_scores
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.request import STOPPED_BY, Request

NO_REASON = -1  # code of a text without an answer


@dataclass(frozen=True)
class PredictionArrays:
    """Answers of texts in their order, without a Python object per text.

    Args:
        labels: (texts,) int64, ids of the labels. Of a multi-label model (texts, labels) int64, 1 where a label is on;
            of regression `None`. -1 for a text without an answer.
        scores: (texts,) float32, probability of the label, or the value of a regression. Of a multi-label model (texts,
            labels), the probability of each label. NaN for a text without an answer.
        exit_layers: (texts,) int64, exit that answered, as a number of layers; 0 for a text without an answer.
        stopped_by: (texts,) int8, index in `STOPPED_BY` of the reason; -1 for a text without an answer.
        errors: reason for each text without an answer, by its index.
    """

    labels: np.ndarray | None
    scores: np.ndarray
    exit_layers: np.ndarray
    stopped_by: np.ndarray
    errors: Mapping[int, str] = field(default_factory=dict)

    # Reasons that `stopped_by` refers to.
    STOPPED_BY = STOPPED_BY

    def __len__(self) -> int:
        return len(self.scores)


def arrays_of(
    backend: Backend, request: Request, answers: Answers, rows: Sequence[int], errors: Mapping[int, str], count: int
) -> PredictionArrays:
    """Returns the answers of `count` texts as arrays.

    Args:
        answers: of the texts that could be read.
        rows: their indices among the texts.
        errors: reason for each other text, by its index.
    """
    labels, scores = labels_and_scores(backend, request, answers)
    layers, codes = exit_layers(backend.artifact, answers), request.stopped_by_codes(answers)
    is_broken = np.isnan(scores)
    if not errors and not is_broken.any():
        return PredictionArrays(labels, scores, layers, codes)
    broken = np.flatnonzero(is_broken if scores.ndim == 1 else is_broken.any(axis=1))
    if labels is not None:
        labels = np.array(labels)
        labels[broken] = -1
    scores = np.array(scores)
    scores[broken], layers[broken], codes[broken] = np.nan, 0, NO_REASON
    places = np.asarray(rows, dtype=np.int64)
    reasons = {**errors, **dict.fromkeys(places[broken].tolist(), NOT_FINITE)}
    return PredictionArrays(
        None if labels is None else _placed(labels, places, count, -1),
        _placed(scores, places, count, np.nan),
        _placed(layers, places, count, 0),
        _placed(codes, places, count, NO_REASON),
        dict(sorted(reasons.items())),
    )


def _placed(values: np.ndarray, places: np.ndarray, count: int, missing: float) -> np.ndarray:
    """Returns an array of `count` rows with `values` at `places` and `missing` elsewhere."""
    placed = np.full((count, *values.shape[1:]), missing, dtype=values.dtype)
    placed[places] = values
    return placed
