"""Converts answers to the dictionaries that `predict` and the pipeline return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.probabilities import softmax
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.call import Call

ALL = "all"
NOT_FINITE = "the model's logits are not finite"


def calibrated_logits(answers: Answers, policy: Policy) -> np.ndarray:
    """Divides logits by the temperature of the exit that answered: (rows, labels) float32."""
    temperatures = np.asarray(policy.temperatures, dtype=np.float32)[answers.exit_index]
    return answers.logits / temperatures[:, None]


def exit_layers(artifact: Artifact, answers: Answers) -> np.ndarray:
    """Returns the exit of each answer, (rows,) int64, as a number of layers."""
    return np.asarray(artifact.exits, dtype=np.int64)[answers.exit_index]


def checked_top_k(top_k: Any) -> int | str | None:
    """Checks the `top_k` of `predict`: `None`, `"all"` or a number of labels.

    Raises:
        ConfigError: anything else.
    """
    if top_k is None or (isinstance(top_k, str) and top_k == ALL):
        return top_k
    if isinstance(top_k, str):
        raise ConfigError(f"top_k={top_k!r}: a number of labels, or {ALL!r}.")
    return whole_number("top_k", top_k, minimum=1)


def most_probable(scores: np.ndarray, names: Sequence[str], top_k: int | str | None) -> list[dict[str, Any]]:
    """Returns labels of one row by descending probability, as `{"label", "score"}`.

    Args:
        scores: (labels,) probabilities.
        names: of the labels.
        top_k: maximum number of labels; `None` and `"all"` for all.
    """
    order = np.argsort(-scores, kind="stable")[: None if top_k in (None, ALL) else top_k]
    return [{"label": names[place], "score": float(scores[place])} for place in order.tolist()]


def predictions_of(
    artifact: Artifact, call: Call, answers: Answers, names: Sequence[str], top_k: int | str | None = None
) -> list[dict[str, Any]]:
    """Returns one dictionary per answer, in order, as documented in `Classifier.predict`."""
    scores = softmax(calibrated_logits(answers, call.policy))
    finite = np.isfinite(scores).all(axis=1)
    predictions = []
    for row, layer, why in zip(
        range(len(answers)), exit_layers(artifact, answers).tolist(), call.stopped_by(answers).tolist(), strict=True
    ):
        if not finite[row]:
            predictions.append(unanswered(NOT_FINITE))
            continue
        best = int(scores[row].argmax())
        prediction = {
            "label": names[best],
            "score": float(scores[row, best]),
            "exit_layer": layer,
            "stopped_by": why,
        }
        if top_k is not None:
            prediction["labels"] = most_probable(scores[row], names, top_k)
        predictions.append(prediction)
    return predictions


def unanswered(reason: str) -> dict[str, Any]:
    """Returns the dictionary of a row without an answer."""
    return {"label": None, "score": None, "exit_layer": None, "stopped_by": None, "error": reason}
