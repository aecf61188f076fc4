"""Metrics of predictions and labels; higher is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (predictions, labels), both (rows,) int64 → a number, higher is better. A prediction of -1 means no answer.
Metric = Callable[[np.ndarray, np.ndarray], float]

NO_ANSWER = -1


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of correct predictions; a row without an answer is incorrect."""
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns F1 of label 1 for two labels, and macro F1, the mean over labels, for more."""
    return float(f1_from_confusion(confusion(predictions, labels)))


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the Matthews correlation, for two or more labels (Gorodkin 2004, equation 8); 0 if undefined."""
    return float(matthews_from_confusion(confusion(predictions, labels)))


def confusion(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix (labels, labels + 1) int64; the last column counts rows without an answer."""
    count = int(max(labels.max(initial=0), predictions.max(initial=0), 1)) + 1
    columns = np.where(predictions == NO_ANSWER, count, predictions)
    return np.bincount(labels * (count + 1) + columns, minlength=count * (count + 1)).reshape(count, count + 1)


def f1_from_confusion(counts: np.ndarray) -> np.ndarray:
    """Returns values (...) for confusion matrices (..., labels, labels + 1)."""
    correct = np.diagonal(counts, axis1=-2, axis2=-1)
    both = counts.sum(axis=-1) + counts[..., :-1].sum(axis=-2)
    each = np.divide(2 * correct, both, out=np.zeros(correct.shape), where=both > 0)
    return each[..., 1] if each.shape[-1] == 2 else each.mean(axis=-1)


def matthews_from_confusion(counts: np.ndarray) -> np.ndarray:
    """Returns values (...) for confusion matrices (..., labels, labels + 1)."""
    true = counts.sum(axis=-1).astype(np.float64)
    predicted = counts.sum(axis=-2).astype(np.float64)  # no answer is a class of its own
    total = true.sum(axis=-1)
    correct = np.diagonal(counts, axis1=-2, axis2=-1).sum(axis=-1)
    covariance = correct * total - (true * predicted[..., :-1]).sum(axis=-1)
    spread = (total**2 - (predicted**2).sum(axis=-1)) * (total**2 - (true**2).sum(axis=-1))
    return np.divide(covariance, np.sqrt(spread), out=np.zeros(np.shape(covariance)), where=spread > 0)


METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "matthews": matthews}

# The same for stacked confusion matrices, for the bootstrap.
CONFUSION_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f1": f1_from_confusion,
    "matthews": matthews_from_confusion,
}
