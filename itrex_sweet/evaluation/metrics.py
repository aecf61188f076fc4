"""Figures of merit: of predictions and labels, more is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (predictions, labels), both (rows,) int64 → a figure where more is better; a prediction of -1 is no answer.
Metric = Callable[[np.ndarray, np.ndarray], float]

NO_ANSWER = -1


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions that are right; a row without an answer is not."""
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """F1 of label 1 where there are two labels, the mean of all labels' F1 where there are more (macro)."""
    return float(f1_from_confusion(confusion(predictions, labels)))


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation, for two labels or more (Gorodkin 2004, equation 8); 0 where it is not defined."""
    return float(matthews_from_confusion(confusion(predictions, labels)))


def confusion(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(labels, labels + 1) int64: rows of each label that got each prediction; the last column got none."""
    count = int(max(labels.max(initial=0), predictions.max(initial=0), 1)) + 1
    places = np.where(predictions == NO_ANSWER, count, predictions)
    return np.bincount(labels * (count + 1) + places, minlength=count * (count + 1)).reshape(count, count + 1)


def f1_from_confusion(counts: np.ndarray) -> np.ndarray:
    """(...) of confusions (..., labels, labels + 1)."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts[..., :-1].sum(axis=-2)
    each = np.divide(2 * right, both, out=np.zeros(right.shape), where=both > 0)
    return each[..., 1] if each.shape[-1] == 2 else each.mean(axis=-1)


def matthews_from_confusion(counts: np.ndarray) -> np.ndarray:
    """(...) of confusions (..., labels, labels + 1)."""
    true = counts.sum(axis=-1).astype(np.float64)
    said = counts.sum(axis=-2).astype(np.float64)  # without an answer is one more thing to say
    total = true.sum(axis=-1)
    right = np.diagonal(counts, axis1=-2, axis2=-1).sum(axis=-1)
    covariance = right * total - (true * said[..., :-1]).sum(axis=-1)
    spread = (total**2 - (said**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros(np.shape(covariance)), where=spread > 0)


METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "matthews": matthews}

# The same of many confusions at once, for resampling.
CONFUSION_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f1": f1_from_confusion,
    "matthews": matthews_from_confusion,
}
