"""Converts answers to the dictionaries that `predict` and the pipeline return."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.request import DEADLINE, Request
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

ALL = "all"
_FEW_LABELS = 32  # sorted faster without NumPy
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
    values = scores.tolist()
    if len(values) <= _FEW_LABELS:
        order = sorted(range(len(values)), key=values.__getitem__, reverse=True)
    else:
        order = np.argsort(-scores, kind="stable").tolist()
    return [
        {"label": names[place], "score": values[place]} for place in order[: None if top_k in (None, ALL) else top_k]
    ]


def labels_and_scores(backend: Backend, request: Request, answers: Answers) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns the decision of each row and its score.

    Returns:
        single-label: the label, (rows,) int64, -1 if the logits are not finite, and its probability, (rows,) float32.
        Multi-label: 1 for labels that are on, else 0, (rows, labels) int64, and the probabilities (rows, labels)
        float32. Regression: `None` and the value, (rows,) float32. Scores of logits that are not finite are NaN.
    """
    task = backend.task
    if task.name == SINGLE_LABEL:
        if answers.labels is not None and answers.probabilities is not None:
            return answers.labels, answers.probabilities
        return backend.best_labels(answers.logits, request.temperatures[answers.exit_index])
    logits = calibrated_logits(answers, request.policy)
    if task.name == REGRESSION:
        return None, task.decisions(logits)
    return task.decisions(logits, label_thresholds=request.policy.label_thresholds), task.scores(logits)


def predictions_of(
    backend: Backend, request: Request, answers: Answers, names: Sequence[str], top_k: int | str | None = None
) -> tuple[list[dict[str, Any]], list[int]]:
    """Returns one dictionary per answer, in order, as documented in `Classifier.predict`, and the indices of those with
    an `error`, whose logits are not finite."""
    labels, scores = labels_and_scores(backend, request, answers)
    task, layers, reasons = backend.task.name, backend.artifact.exits, request.reasons
    exits = answers.exit_index.tolist()
    if labels is None:
        predictions = [
            {"score": score, "exit_layer": layers[exit_], "stopped_by": reasons[exit_]}
            for score, exit_ in zip(scores.tolist(), exits, strict=True)
        ]
        broken = np.flatnonzero(np.isnan(scores)).tolist()
    elif labels.ndim == 1:
        ids = labels.tolist()
        predictions = [
            {"label": names[label], "score": score, "exit_layer": layers[exit_], "stopped_by": reasons[exit_]}
            for label, score, exit_ in zip(ids, scores.tolist(), exits, strict=True)
        ]
        broken = [row for row, label in enumerate(ids) if label < 0] if ids and min(ids) < 0 else []
    else:
        predictions = [
            {"labels": labels_that_are_on(*row, names), "exit_layer": layers[exit_], "stopped_by": reasons[exit_]}
            for *row, exit_ in zip(labels, scores, exits, strict=True)
        ]
        broken = np.flatnonzero(np.isnan(scores).any(axis=1)).tolist()
    if answers.out_of_time is not None:
        for row in np.flatnonzero(answers.out_of_time).tolist():
            predictions[row]["stopped_by"] = DEADLINE
    if top_k is not None and labels is not None:
        if labels.ndim == 1:
            scores = backend.probabilities(answers.logits, request.temperatures[answers.exit_index])
        for prediction, row in zip(predictions, scores, strict=True):
            prediction[_RANKING[task]] = most_probable(row, names, top_k)
    for row in broken:
        predictions[row] = unanswered(NOT_FINITE, task)
    return predictions, broken


def labels_that_are_on(is_on: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the labels of one row that are on, as `most_probable`."""
    return most_probable(np.where(is_on == 1, scores, -1.0), names, int((is_on == 1).sum()))


_RANKING = {SINGLE_LABEL: "labels", MULTI_LABEL: "scores"}  # the field of `top_k`
_WITHOUT_ANSWER = {SINGLE_LABEL: ("label", "score"), MULTI_LABEL: ("labels",), REGRESSION: ("score",)}


def unanswered(reason: str, task: str = SINGLE_LABEL) -> dict[str, Any]:
    """Returns the dictionary of a row without an answer."""
    return {**dict.fromkeys((*_WITHOUT_ANSWER[task], "exit_layer", "stopped_by")), "error": reason}
