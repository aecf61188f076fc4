"""Converts answers to the dictionaries that `predict` and the pipeline return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.call import Call
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

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
    logits, thresholds = calibrated_logits(answers, call.policy), call.policy.label_thresholds
    scores = artifact.task.scores(logits)
    finite = np.isfinite(scores).all(axis=1)
    decided = _FIELDS[artifact.task.name](scores, artifact.task.decisions(logits, label_thresholds=thresholds), names)
    ranking = _RANKING.get(artifact.task.name)
    predictions = []
    for row, layer, why in zip(
        range(len(answers)), exit_layers(artifact, answers).tolist(), call.stopped_by(answers).tolist(), strict=True
    ):
        if not finite[row]:
            predictions.append(unanswered(NOT_FINITE, artifact.task.name))
            continue
        prediction = {**decided(row), "exit_layer": layer, "stopped_by": why}
        if top_k is not None and ranking is not None:
            prediction[ranking] = most_probable(scores[row], names, top_k)
        predictions.append(prediction)
    return predictions


# Returns the fields of one row that depend on its decision.
_Fields = Callable[[int], dict[str, Any]]


def _one_label(scores: np.ndarray, decisions: np.ndarray, names: Sequence[str]) -> _Fields:
    def fields(row: int) -> dict[str, Any]:
        best = int(scores[row].argmax())
        return {"label": names[best], "score": float(scores[row, best])}

    return fields


def _labels_that_are_on(scores: np.ndarray, decisions: np.ndarray, names: Sequence[str]) -> _Fields:
    def fields(row: int) -> dict[str, Any]:
        on = np.where(decisions[row] == 1, scores[row], -1.0)
        return {"labels": most_probable(on, names, int((decisions[row] == 1).sum()))}

    return fields


def _value(scores: np.ndarray, decisions: np.ndarray, names: Sequence[str]) -> _Fields:
    return lambda row: {"score": float(decisions[row])}


_FIELDS = {SINGLE_LABEL: _one_label, MULTI_LABEL: _labels_that_are_on, REGRESSION: _value}
_RANKING = {SINGLE_LABEL: "labels", MULTI_LABEL: "scores"}  # the field of `top_k`
_WITHOUT_ANSWER = {SINGLE_LABEL: ("label", "score"), MULTI_LABEL: ("labels",), REGRESSION: ("score",)}


def unanswered(reason: str, task: str = SINGLE_LABEL) -> dict[str, Any]:
    """Returns the dictionary of a row without an answer."""
    return {**dict.fromkeys((*_WITHOUT_ANSWER[task], "exit_layer", "stopped_by")), "error": reason}
