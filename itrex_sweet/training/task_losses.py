"""Losses and targets of one exit of a multi-label or regression head, and the choice of losses by task.

A label of multi-label classification is a vector of ones and zeros, (rows, labels) float32; a label of regression is a
number, (rows,) float32. Losses are means over all elements of the labels, as in Hugging Face models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from itrex_sweet.errors import InputError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from itrex_sweet.training.losses import (
    classification_loss,
    correctness_loss,
    distillation_loss,
    validate_labels,
    weighted_classification_loss,
)

Loss = torch.Tensor  # a float32 scalar
NumItems = torch.Tensor | int | None  # of the whole accumulated batch, as in `losses.classification_loss`


@dataclass(frozen=True)
class TaskLosses:
    """The functions of one task that training needs.

    Args:
        label: `(logits, labels, weights)`, the loss against the labels; `weights` are class weights or `None`.
        distillation: `(logits, teacher_logits, labels, temperature, num_items)`.
        confidence: `(output, logits, labels, teacher_logits, num_items)`, the loss of an exit's additional output; it
            has no gradient for `logits`.
        targets: `(logits)`, the labels that the model predicts, as targets for other exits.
        validate: `(labels, num_labels)`, returns checked labels.
    """

    label: Callable[[torch.Tensor, torch.Tensor, tuple[float, ...] | None], Loss]
    distillation: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, NumItems], Loss]
    confidence: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, NumItems], Loss]
    targets: Callable[[torch.Tensor], torch.Tensor]
    validate: Callable[[torch.Tensor, int], torch.Tensor]


def losses_of(task: Task) -> TaskLosses:
    """Returns the losses of a task."""
    return _LOSSES[task.name]


# ------------------------------------------------------------------------------------ multi-label classification


def binary_classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, positive_weights: tuple[float, ...] | None = None
) -> Loss:
    """Computes the binary cross-entropy in float32, averaged over rows and labels.

    Args:
        logits: (rows, labels), any float type.
        labels: (rows, labels), from 0 to 1.
        positive_weights: weight of each label's positive rows, as `torch.nn.BCEWithLogitsLoss(pos_weight=...)`.
    """
    weights = None if positive_weights is None else torch.tensor(positive_weights, device=logits.device)
    return F.binary_cross_entropy_with_logits(
        logits.float(), labels.to(logits.device).float(), pos_weight=weights, reduction="mean"
    )


def binary_distillation_loss(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    num_items: NumItems = None,
) -> Loss:
    """Computes `T² KL(sigmoid(teacher_logits / T) ‖ sigmoid(logits / T))` in float32, averaged over rows and labels:
    the distillation loss of Hinton et al. 2015 (arXiv 1503.02531) for each label as a task of two classes.

    Args:
        logits, teacher_logits: (rows, labels); the teacher's are detached.
        labels: (rows, labels), of which the number of elements is used.
        temperature: T.
        num_items: number of elements of the labels of the whole accumulated batch.
    """
    student, teacher = (each.float() / temperature for each in (logits, teacher_logits.detach()))
    share = torch.sigmoid(teacher)
    divergence = share * (F.logsigmoid(teacher) - F.logsigmoid(student))
    divergence = divergence + (1 - share) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * _mean(divergence.sum(), labels.numel(), num_items)


def exact_match_loss(
    correctness_logits: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor | None = None,
    num_items: NumItems = None,
) -> Loss:
    """Computes the squared error of an exit's predicted probability that all its labels are correct, see
    `losses.correctness_loss`.

    Args:
        correctness_logits: (rows,) logits of that probability.
        logits, labels: (rows, labels); detached.
        teacher_logits: ignored.
        num_items: number of elements of the labels of the whole accumulated batch.
    """
    labels = labels.to(logits.device)
    is_correct = ((logits.detach() > 0) == (labels > 0.5)).all(dim=-1).float()
    squares = (torch.sigmoid(correctness_logits.float()) - is_correct) ** 2
    return _mean(labels.shape[1] * squares.sum(), labels.numel(), num_items)


def validate_label_vectors(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Checks label vectors and returns them as float32.

    Raises:
        InputError: not a number from 0 to 1 for each row and label.
    """
    if labels.dim() != 2 or labels.shape[1] != num_labels:
        raise InputError(
            f"labels of shape {tuple(labels.shape)}: multi-label classification needs a vector of {num_labels} ones "
            f"and zeros for each row, of shape (rows, {num_labels})."
        )
    _refuse_complex(labels)
    labels = labels.float()
    wrong = ~((labels >= 0) & (labels <= 1)).all(dim=-1)  # NaN too
    if wrong.any():
        rows = tuple(wrong.nonzero().flatten().tolist())
        raise InputError(
            f"labels {labels[rows[0]].tolist()} in row {rows[0]}: a label is 1 if it applies and 0 if not.", rows=rows
        )
    return labels


# ------------------------------------------------------------------------------------ regression


def regression_loss(logits: torch.Tensor, labels: torch.Tensor, weights: tuple[float, ...] | None = None) -> Loss:
    """Computes the squared error in float32, averaged over rows.

    Args:
        logits: (rows, 1), any float type.
        labels: (rows,).
        weights: must be `None`; values have no classes.
    """
    return F.mse_loss(logits[:, 0].float(), labels.to(logits.device).float())


def value_distillation_loss(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    num_items: NumItems = None,
) -> Loss:
    """Computes the squared difference from the teacher's value in float32, averaged over rows.

    Args:
        logits, teacher_logits: (rows, 1); the teacher's are detached.
        labels: (rows,), of which the number is used.
        temperature: ignored, since values are not probabilities.
        num_items: number of rows of the whole accumulated batch.
    """
    squares = (logits.float() - teacher_logits.detach().float()) ** 2
    return _mean(squares.sum(), labels.numel(), num_items)


def error_estimate_loss(
    output: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor | None = None,
    num_items: NumItems = None,
) -> Loss:
    """Computes the loss of an exit's estimate of its absolute error.

    The additional output `c` stands for an error of `exp(-c)`, whose negative log-likelihood under a Laplace
    distribution is `|error| exp(c) - c` up to a constant (the heteroscedastic loss of Kendall and Gal 2017, arXiv
    1703.04977, section 3.1, with a detached error). It is minimal where `exp(-c)` is the mean absolute error.

    Args:
        output: (rows,) c.
        logits: (rows, 1) values of the exit; detached.
        labels: (rows,).
        teacher_logits: (rows, 1) of the model that the exit learns from, whose value the error is measured against: an
            early answer is compared with that of the last exit. `None` for the error against the labels.
        num_items: number of rows of the whole accumulated batch.
    """
    target = labels.to(logits.device).float() if teacher_logits is None else teacher_logits.detach()[:, 0].float()
    error = (logits.detach()[:, 0].float() - target).abs()
    output = output.float()
    return _mean((error * output.clamp(max=_MAX_OUTPUT).exp() - output).sum(), labels.numel(), num_items)


def validate_values(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Checks the targets of a regression and returns them as (rows,) float32.

    Raises:
        InputError: not one finite number per row.
    """
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 1:
        raise InputError(
            f"labels of shape {tuple(labels.shape)}: regression needs one number per row, of shape (rows,)."
        )
    _refuse_complex(labels)
    labels = labels.float()
    wrong = ~torch.isfinite(labels)
    if wrong.any():
        rows = tuple(wrong.nonzero().flatten().tolist())
        raise InputError(
            f"label {labels[rows[0]].item()} in row {rows[0]}: the target of a regression is a finite number.",
            rows=rows,
        )
    return labels


_MAX_OUTPUT = 20.0  # an estimated error of 2e-9; keeps the exponential finite


def _mean(total: torch.Tensor, items: int, num_items: NumItems) -> Loss:
    items = items if num_items is None else num_items
    return total / torch.as_tensor(items, device=total.device).clamp(min=1)


def _refuse_complex(labels: torch.Tensor) -> None:
    if labels.is_complex():
        raise InputError(f"labels of type {labels.dtype}: labels are real numbers.")


def _single_label_correctness(
    correctness_logits: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor | None = None,
    num_items: NumItems = None,
) -> Loss:
    return correctness_loss(correctness_logits, logits, labels, num_items)


_LOSSES = {
    SINGLE_LABEL: TaskLosses(
        label=lambda logits, labels, weights: (
            classification_loss(logits, labels)
            if weights is None
            else weighted_classification_loss(logits, labels, weights)
        ),
        distillation=distillation_loss,
        confidence=_single_label_correctness,
        targets=lambda logits: logits.argmax(dim=-1),
        validate=validate_labels,
    ),
    MULTI_LABEL: TaskLosses(
        label=binary_classification_loss,
        distillation=binary_distillation_loss,
        confidence=exact_match_loss,
        targets=lambda logits: (logits > 0).float(),
        validate=validate_label_vectors,
    ),
    REGRESSION: TaskLosses(
        label=regression_loss,
        distillation=value_distillation_loss,
        confidence=error_estimate_loss,
        targets=lambda logits: logits[:, 0].float(),
        validate=validate_values,
    ),
}
