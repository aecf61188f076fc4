"""The losses of one exit, and the labels it may be given."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import InputError

IGNORED_LABEL = -100  # as in torch and transformers: a row with this label is not trained on


def classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Cross-entropy of one exit in float32, averaged over the labelled rows.

    Args:
        logits: (rows, labels), any float type.
        labels: (rows,) int64; `IGNORED_LABEL` leaves a row out.
        num_items: labelled rows of the whole accumulated batch. Given, the sum is divided by it, so that the
            losses of the micro-batches add up to the loss of the big batch.

    Returns:
        A float32 scalar; 0 where no row is labelled.
    """
    total = F.cross_entropy(logits.float(), labels.to(logits.device), ignore_index=IGNORED_LABEL, reduction="sum")
    return _mean(total, labels, num_items)


def exit_loss(
    config: SweetConfig,
    label_loss: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    taught: torch.Tensor | None,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """The loss of one exit: from the labels, and with distillation a share of it from the teacher.

    Args:
        config: says how much.
        label_loss: what the labels say, a scalar; the teacher's part knows no class weights.
        logits: (rows, labels).
        labels, num_items: as in `classification_loss`.
        taught: (rows, labels) of the teacher; of an exit's own logits it learns nothing. `None` for no teacher.

    Returns:
        A float32 scalar with its graph.
    """
    share = config.distillation
    if share == 0.0 or taught is None or logits is taught:
        return label_loss
    soft = distillation_loss(logits, taught, labels, config.distillation_temperature, num_items)
    return soft if share == 1.0 else (1 - share) * label_loss + share * soft


def distillation_loss(
    logits: torch.Tensor,
    taught: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """`T² KL(softmax(taught / T) ‖ softmax(logits / T))` in float32, averaged over the labelled rows (Hinton et al.
    2015, arXiv 1503.02531, section 2).

    Args:
        logits: (rows, labels) of an exit.
        taught: (rows, labels) of the teacher; no gradient reaches them.
        temperature: T.
        labels, num_items: as in `classification_loss`.

    Returns:
        A float32 scalar; 0 where no row is labelled.
    """
    ours = F.log_softmax(logits.float() / temperature, dim=-1)
    theirs = F.log_softmax(taught.detach().float() / temperature, dim=-1)
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * _mean(divergence[labels.to(logits.device) != IGNORED_LABEL].sum(), labels, num_items)


def certainty_loss(
    certainty: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Squared error of how likely an exit says it is right, against whether it is (BERxiT, Xin et al., EACL 2021).

    Args:
        certainty: (rows,) logits of being right.
        logits: (rows, labels) of the exit; no gradient reaches them.
        labels, num_items: as in `classification_loss`.

    Returns:
        A float32 scalar; 0 where no row is labelled.
    """
    labels = labels.to(logits.device)
    right = (logits.detach().argmax(dim=-1) == labels).float()
    squares = (torch.sigmoid(certainty.float()) - right) ** 2
    return _mean(squares[labels != IGNORED_LABEL].sum(), labels, num_items)


def _mean(total: torch.Tensor, labels: torch.Tensor, num_items: torch.Tensor | int | None) -> torch.Tensor:
    items = (labels != IGNORED_LABEL).sum() if num_items is None else torch.as_tensor(num_items)
    return total / items.to(total.device).clamp(min=1)


def checked_labels(labels: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Class indices as int64, once each is known to be one.

    Raises:
        InputError: not one whole number per row, or a class that the model does not have.
    """
    if labels.dim() != 1:
        raise InputError(
            f"labels of shape {tuple(labels.shape)}: exits answer single-label classification, so labels are "
            "one class index per row, of shape (rows,)."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"labels of type {labels.dtype}: labels are class indices, whole numbers (torch.long).")
    labels = labels.long()
    wrong = (labels != IGNORED_LABEL) & ((labels < 0) | (labels >= num_labels))
    if wrong.any():
        rows = tuple(wrong.nonzero().flatten().tolist())
        raise InputError(
            f"label {labels[rows[0]].item()} in row {rows[0]}: the model has num_labels={num_labels}, so "
            f"labels lie in 0 … {num_labels - 1} ({IGNORED_LABEL} leaves a row out).",
            rows=rows,
        )
    return labels
