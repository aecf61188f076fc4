"""Finds budgets that a constant prediction keeps, as for imbalanced labels."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from itrex_sweet.calibration.guarantees import Guarantee, PairedPredictions
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task

logger = logging.getLogger(__name__)


def warn_of_constant_prediction(
    full_depth: PairedPredictions, guarantee: Guarantee | None, label_names: Sequence[str]
) -> None:
    """Warns if predicting the same for all rows would keep the budget.

    If 99.5 % of the rows have the same label, always predicting it changes 0.5 % of the labels: a budget of 1 % then
    does not protect the other label.

    Args:
        full_depth: predictions of the compared model, on the testing rows.
        guarantee: of the budget; without one there is no warning.
        label_names: of the model.
    """
    if guarantee is None:
        return
    constant = most_frequent_prediction(full_depth.reference, full_depth.task)
    predictions = np.broadcast_to(constant, full_depth.reference.shape)
    drop = guarantee.drop(dataclasses.replace(full_depth, policy=predictions))
    if not drop <= guarantee.epsilon:
        return
    logger.warning(
        "Always predicting %s would keep this budget too: the drop is %.2f %% of at most %g %%. The guarantee does not "
        "protect other answers. Pass a smaller drop%s.",
        _described(constant, full_depth.task, label_names),
        100 * drop,
        100 * guarantee.epsilon,
        ""
        if full_depth.task.name == REGRESSION
        else " or, with labels, a drop of a metric that counts rare labels, such as "
        + ("f1 or matthews" if full_depth.task.name == SINGLE_LABEL else "macro_f1"),
    )


def most_frequent_prediction(predictions: np.ndarray, task: Task) -> np.ndarray:
    """Returns the most frequent label, (), or set of labels, (labels,); the median of the values of a regression."""
    if task.name == REGRESSION:
        return np.median(predictions)
    values, counts = np.unique(predictions, axis=0, return_counts=True)
    return values[counts.argmax()]


def _described(prediction: np.ndarray, task: Task, label_names: Sequence[str]) -> str:
    if task.name == REGRESSION:
        return f"{float(prediction):.4g}"
    if task.name == MULTI_LABEL:
        return f"{[name for name, is_on in zip(label_names, prediction, strict=True) if is_on == 1]}"
    return repr(label_names[int(prediction)])
