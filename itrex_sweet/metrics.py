"""Metrics of predictions and labels, by task; higher is better. Imports NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from itrex_sweet.tasks import NO_ANSWER

# (predictions, labels), both as the decisions of the task → a number, higher is better. A prediction of -1, or NaN in
# regression, means no answer.
Metric = Callable[[np.ndarray, np.ndarray], float]


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


def exact_match(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the fraction of rows whose labels are all predicted correctly, for (rows, labels) of ones and zeros."""
    return float((predictions == labels).all(axis=-1).mean())


def micro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns F1 of all rows and labels together, for (rows, labels) of ones and zeros."""
    return float(_f1_of_counts(*(each.sum() for each in label_counts(predictions, labels))))


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over labels of each label's F1, for (rows, labels) of ones and zeros."""
    return float(_f1_of_counts(*label_counts(predictions, labels)).mean())


def label_counts(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each label the rows that have it and are predicted to, and twice these plus all errors, (labels,).

    A row without an answer lacks the labels that it has.
    """
    has, predicted = labels == 1, predictions == 1
    correct = (has & predicted).sum(axis=0)
    return correct, has.sum(axis=0) + predicted.sum(axis=0)


def _f1_of_counts(correct: np.ndarray, both: np.ndarray) -> np.ndarray:
    return np.divide(2.0 * correct, both, out=np.zeros(np.shape(correct)), where=both > 0)


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the Pearson correlation of values (rows,); 0 if undefined. Rows without an answer count as the mean of
    the predictions.
    """
    values = np.asarray(predictions, dtype=np.float64)
    answered = np.isfinite(values)
    values = np.where(answered, values, values[answered].mean() if answered.any() else 0.0)
    x, y = values - values.mean(), np.asarray(labels, dtype=np.float64) - np.mean(labels, dtype=np.float64)
    spread = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / spread) if spread > 0 else 0.0


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns the Pearson correlation of the ranks; rows with equal values share their mean rank."""
    values = np.asarray(predictions, dtype=np.float64)
    answered = np.isfinite(values)
    ranks = np.full(len(values), np.nan)
    ranks[answered] = _ranks(values[answered])
    return pearson(ranks, _ranks(np.asarray(labels, dtype=np.float64)))


def negative_mse(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Returns minus the mean squared error; minus infinity if a row has no answer."""
    error = np.mean((np.asarray(predictions, dtype=np.float64) - labels) ** 2)
    return float(-error) if np.isfinite(error) else -math.inf


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2.0)[place]


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "exact_match": exact_match,
    "micro_f1": micro_f1,
    "macro_f1": macro_f1,
    "pearson": pearson,
    "spearman": spearman,
    "negative_mse": negative_mse,
}

NUMBERS = ("pearson", "spearman", "negative_mse", "pearson with float32")  # shown as numbers, not as percent

# The same for stacked confusion matrices, for the bootstrap.
CONFUSION_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "f1": f1_from_confusion,
    "matthews": matthews_from_confusion,
}
