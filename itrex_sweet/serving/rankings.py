"""Labels by descending score, as several protocols return them."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrex_sweet.classifier.predictions import most_probable
from itrex_sweet.probabilities import logistic, softmax
from itrex_sweet.serving.inference import Outcome
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION

_EXTRA = ("exit_layer", "stopped_by", "confidence")


def ranked(outcome: Outcome, raw: bool = False, top_k: int | None = None) -> list[list[dict[str, Any]]]:
    """Returns for each text its labels by descending score, as `{"score", "label"}`.

    The first one also has `exit_layer`, `stopped_by` and `confidence`, as of `Classifier.predict`.

    Args:
        raw: return logits in place of probabilities.
        top_k: maximum number of labels.
    """
    task, predictions = outcome.model.artifact.task.name, outcome.predictions(with_all_labels=True)
    if raw:
        rankings = _by(outcome.logits, outcome)
    elif task == REGRESSION:
        name = outcome.model.labels[0]
        rankings = [[{"label": name, "score": prediction["score"]}] for prediction in predictions]
    else:
        field = "scores" if task == MULTI_LABEL else "labels"
        rankings = [prediction[field] for prediction in predictions]
    for ranking, prediction in zip(rankings, predictions, strict=True):
        if top_k is not None:
            del ranking[top_k:]
        for name in _EXTRA:
            ranking[0][name] = prediction[name]
    return rankings


def ranked_by(outcome: Outcome, function: str, top_k: int | None = None) -> list[list[dict[str, Any]]]:
    """Returns what `ranked` returns, by scores that another function makes of the logits.

    Args:
        function: `"sigmoid"`, `"softmax"` or `"none"`.
    """
    rankings = ranked(outcome, raw=True)
    if function == "none":
        scores = outcome.logits
    else:
        scores = softmax(outcome.logits) if function == "softmax" else logistic(np.asarray(outcome.logits))
    for ranking, by in zip(rankings, _by(scores, outcome), strict=True):
        extra = {name: ranking[0][name] for name in _EXTRA}
        ranking[:] = by[:top_k]
        ranking[0] |= extra
    return rankings


def _by(scores: np.ndarray, outcome: Outcome) -> list[list[dict[str, Any]]]:
    return [most_probable(row, outcome.model.labels, None) for row in scores]
