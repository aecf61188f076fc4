"""Tests if the outputs of an exit depend on the labels of the rows. Imports NumPy only.

Accuracy cannot tell: if 94 % of the rows have the same label, an exit that always predicts it is as accurate as one
that is certain of half of these rows and unsure of the others, which is what early exit needs. Both differ in their
logits.
"""

from __future__ import annotations

import math

import numpy as np

from itrex_sweet.tasks import SINGLE_LABEL, Task

MIN_ASSOCIATION = 2.0  # standard deviations
MIN_OTHERS = 10  # rows with another target than the most frequent one, from which an exit can be judged
MIN_SEPARATION = 0.4
_MIN_SPREAD = 1e-6  # of the logits, relative to the largest; below it they differ by rounding


def association(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns how strongly logits depend on the targets of their rows, in standard deviations.

    The statistic is that of a permutation test: the log-likelihood of the targets under the logits, `sum(logits *
    targets)` up to a term that does not depend on the targets, minus its mean over all permutations of the rows, over
    its standard deviation. Both have a closed form (Hoeffding 1951, "A combinatorial central limit theorem"). Offsets
    and the scale of the logits do not change it. For one column it is Pearson's correlation times `sqrt(rows - 1)`.

    Args:
        logits: (rows, labels); rows that are not finite are ignored.
        targets: (rows, labels) from `one_hot`, or the probabilities, or values, of another model.

    Returns:
        about 0 for outputs that do not depend on the targets; exactly 0 for constant outputs or targets.
    """
    logits, targets = (np.asarray(each, dtype=np.float64) for each in (logits, targets))
    finite = np.isfinite(logits).all(axis=1) & np.isfinite(targets).all(axis=1)
    logits, targets = logits[finite], targets[finite]
    varies = np.ptp(targets, axis=0) > 0.0 if len(targets) else np.zeros(0, dtype=bool)
    if not varies.any():
        return 0.0
    x, y = (each[:, varies] - each[:, varies].mean(axis=0) for each in (logits, targets))
    if np.abs(x).max() <= _MIN_SPREAD * np.abs(logits).max():
        return 0.0
    variance = ((x.T @ x) * (y.T @ y)).sum() / (len(x) - 1)
    return float((x * y).sum() / np.sqrt(variance)) if variance > 0.0 else 0.0


def has_learned(association: float, others: int) -> bool | None:
    """Returns whether the outputs of an exit depend on the targets; `None` if too few rows tell.

    To leave out a useful exit costs more than to keep a useless one, which calibration switches off. So an exit has
    learned nothing only if its outputs are constant, or if they do not depend on the targets of enough rows. If one
    target is frequent, the rows with other targets decide: the expected association of an exit grows with the square
    root of their number.

    Args:
        association: of its outputs and the targets.
        others: number of rows whose target is not the most frequent one.
    """
    if association > MIN_ASSOCIATION:
        return True
    is_constant = association == 0.0 and others > 0
    return False if is_constant or others >= MIN_OTHERS else None


def separation(association: float, targets: np.ndarray) -> float:
    """Returns how far the logits of a label differ between rows with it and other rows.

    If the logits of different labels are independent, it is the difference of their means in standard deviations (of
    all rows).
    Unlike the association it does not grow with the number of rows, and unlike accuracies and losses it does not depend
    on how frequent the labels are.

    Args:
        association: of logits and targets.
        targets: (rows, labels) from `one_hot`.
    """
    spread = float(((targets - targets.mean(axis=0)) ** 2).sum())
    return association / math.sqrt(spread) if spread > 0.0 else 0.0


def one_hot(task: Task, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns labels as targets of `association`, (rows, labels).

    Args:
        task: of the model.
        labels: (rows,) ids, values of a regression, or for multi-label classification (rows, labels) ones and zeros.
        num_labels: of the model.
    """
    labels = np.asarray(labels)
    if task.name == SINGLE_LABEL:
        return (labels[:, None] == np.arange(num_labels)).astype(np.float64)
    return labels.reshape(len(labels), num_labels).astype(np.float64)
