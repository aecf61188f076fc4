"""Losses of a call with labels, by task."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from itrex_sweet.tasks import MULTI_LABEL, REGRESSION
from itrex_sweet.tokenization.inputs import label_vectors_of, labels_of, values_of


def targets_of(labels: Any, rows: int, num_labels: int, task: str) -> torch.Tensor:
    """Converts labels to (rows,) int64, for a multi-label task to (rows, labels) and for regression to (rows,) float32.

    Raises:
        InputError: labels that do not fit the rows or the task.
    """
    if task == MULTI_LABEL:
        return torch.from_numpy(label_vectors_of(labels, rows, num_labels))
    return torch.from_numpy(values_of(labels, rows) if task == REGRESSION else labels_of(labels, rows, num_labels))


def task_loss(logits: torch.Tensor, targets: torch.Tensor, task: str) -> torch.Tensor:
    """Computes the mean loss of the logits (rows, labels), as transformers' models do."""
    if task == MULTI_LABEL:
        return F.binary_cross_entropy_with_logits(logits, targets)
    return F.mse_loss(logits[:, 0], targets) if task == REGRESSION else F.cross_entropy(logits, targets)
