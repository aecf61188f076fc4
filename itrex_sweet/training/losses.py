"""Loss functions of one exit, and validation of labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import InputError

IGNORE_INDEX = -100  # label of rows that are left out of the loss, as in torch and transformers


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Computes the cross-entropy of one exit in float32, averaged over the labelled rows.

    Args:
        logits: (rows, labels), any float type.
        labels: (rows,) int64; rows with `IGNORE_INDEX` are left out.
        num_items: number of labelled rows of the whole accumulated batch. If given, the sum is divided by it, so that
            the losses of the micro-batches add up to the loss of the whole batch.

    Returns:
        A float32 scalar; 0 if no row is labelled.
    """
    total = F.cross_entropy(logits.float(), labels.to(logits.device), ignore_index=IGNORE_INDEX, reduction="sum")
    return _mean(total, labels, num_items)


def weighted_classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, weights: tuple[float, ...]
) -> torch.Tensor:
    """Computes the cross-entropy with class weights, divided by the sum of the rows' weights; see
    `classification_loss`.
    """
    weight = torch.tensor(weights, device=logits.device)
    total = F.cross_entropy(logits.float(), labels, weight=weight, ignore_index=IGNORE_INDEX, reduction="sum")
    divisor = weight[labels[labels != IGNORE_INDEX]].sum()
    return total / (divisor + (divisor == 0))


def exit_loss(
    config: SweetConfig,
    label_loss: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    teacher_logits: torch.Tensor | None,
    num_items: torch.Tensor | int | None = None,
    distillation: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Combines the loss against the labels with the distillation loss.

    Args:
        config: gives the share of distillation and its temperature.
        label_loss: loss against the labels, a scalar.
        logits: (rows, labels).
        labels, num_items: as in `classification_loss`.
        teacher_logits: (rows, labels); `None` for no teacher. If it is `logits` itself, there is no distillation.
        distillation: the distillation loss of the task; by default `distillation_loss`.

    Returns:
        A float32 scalar with its graph.
    """
    share = config.distillation
    if share == 0.0 or teacher_logits is None or logits is teacher_logits:
        return label_loss
    compute = distillation or distillation_loss
    soft = compute(logits, teacher_logits, labels, config.distillation_temperature, num_items)
    return soft if share == 1.0 else (1 - share) * label_loss + share * soft


def distillation_loss(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Computes `T² KL(softmax(teacher_logits / T) ‖ softmax(logits / T))` in float32, averaged over the labelled rows
    (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Args:
        logits: (rows, labels) of an exit.
        teacher_logits: (rows, labels); detached.
        labels, num_items: as in `classification_loss`.
        temperature: T.

    Returns:
        A float32 scalar; 0 if no row is labelled.
    """
    student = F.log_softmax(logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * _mean(divergence[labels.to(logits.device) != IGNORE_INDEX].sum(), labels, num_items)


def correctness_loss(
    correctness_logits: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Computes the squared error of an exit's predicted probability of being correct (BERxiT, Xin et al., EACL 2021).

    Args:
        correctness_logits: (rows,) logits of the probability that the exit's prediction is correct.
        logits: (rows, labels) of the exit; detached.
        labels, num_items: as in `classification_loss`.

    Returns:
        A float32 scalar; 0 if no row is labelled.
    """
    labels = labels.to(logits.device)
    is_correct = (logits.detach().argmax(dim=-1) == labels).float()
    squares = (torch.sigmoid(correctness_logits.float()) - is_correct) ** 2
    return _mean(squares[labels != IGNORE_INDEX].sum(), labels, num_items)


def _mean(total: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
    items = (labels != IGNORE_INDEX).sum() if num_items is None else torch.as_tensor(num_items)
    return total / items.to(total.device).clamp(min=1)


def validate_labels(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Checks class indices and returns them as int64.

    Raises:
        InputError: not one integer per row, or an index out of range.
    """
    if labels.dim() != 1:
        raise InputError(
            f"labels of shape {tuple(labels.shape)}: labels of single-label classification are one class index per "
            "row, of shape (rows,). For several labels per row load the model with "
            "problem_type='multi_label_classification'."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"labels of type {labels.dtype}: labels are class indices, whole numbers (torch.long). For regression load "
            "the model with num_labels=1."
        )
    labels = labels.long()
    out_of_range = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= num_labels))
    if out_of_range.any():
        rows = tuple(out_of_range.nonzero().flatten().tolist())
        raise InputError(
            f"label {labels[rows[0]].item()} in row {rows[0]}: the model has num_labels={num_labels}, so "
            f"labels lie in 0 … {num_labels - 1} ({IGNORE_INDEX} leaves a row out).",
            rows=rows,
        )
    return labels
