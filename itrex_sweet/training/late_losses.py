"""Finds exits that hardly learned, by their losses and logits at the end of a training."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional as F

from itrex_sweet.association import MIN_SEPARATION, association, has_learned, separation
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from itrex_sweet.training.attachment import Attachment
from itrex_sweet.training.exit_metrics import RunningMeans
from itrex_sweet.training.losses import IGNORE_INDEX

LATE_SHARE = 0.2  # of the steps of a training, the last ones
_MIN_ROWS = 100
_LEARNED_SHARE = 0.2  # of the last exit's improvement; an exit below it hardly learned
_MAX_NUMBERS = 1 << 22  # of the logits that are kept
_LEARNED_LAST = 0.3  # share of the constant loss that the last exit has removed, else no exit is compared with it


class LateLosses:
    """The exits' losses against the labels, sums of the labels, and the last logits, in the last steps of a training.

    A process of a distributed training counts its own rows.
    """

    def __init__(self) -> None:
        self._losses = RunningMeans()
        self._task: Task | None = None
        self._rows = 0
        self._sums: torch.Tensor | None = None  # (2, labels): of the labels, one-hot, and of their squares
        self._batches: deque[tuple[torch.Tensor, torch.Tensor]] = deque()  # labels, and logits (exits, rows, labels)
        self._exits: tuple[int, ...] = ()

    def add(self, attachment: Attachment) -> None:
        """Adds the last batch of an attachment, if its loss is the plain one of the task and its rows have labels."""
        if attachment.labels is None or not attachment.label_loss.is_default:
            return
        self._task, labels = attachment.task, attachment.labels
        logits = torch.stack([each.detach() for each in attachment.exit_logits.values()])
        if self._task.name == SINGLE_LABEL:
            labelled = labels != IGNORE_INDEX
            labels, logits = F.one_hot(labels[labelled], attachment.model.config.num_labels), logits[:, labelled]
        if not len(labels):
            return
        labels = labels.reshape(len(labels), -1).float()
        self._exits = tuple(attachment.exit_logits)
        self._batches.append((labels, logits))
        while sum(each.numel() for _, each in self._batches) > _MAX_NUMBERS and len(self._batches) > 1:
            self._batches.popleft()
        sums = torch.stack([labels.sum(0), (labels**2).sum(0)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._rows += len(labels)
        self._losses.add(attachment.exit_losses)

    def clear(self) -> None:
        """Removes all batches."""
        self._losses.clear()
        self._batches.clear()
        self._rows, self._sums = 0, None

    def warnings(self) -> list[str]:
        """Returns a sentence for each exit that hardly learned; see `hardly_learned`."""
        if self._rows < _MIN_ROWS:
            return []
        constant = constant_loss(self._task, self._rows, self._sums)
        losses = {exit_: total.item() for exit_, total in self._losses.means().items()}
        found = [exit_ for exit_ in hardly_learned(losses, constant) if not self._separates(exit_)]
        if not found:
            return []
        others = tuple(exit_ for exit_ in losses if exit_ not in found)
        prediction = "mean" if self._task.name == REGRESSION else "frequencies"
        last = max(losses)
        return [
            f"exit {exit_} hardly learned: its loss in the last {LATE_SHARE:.0%} of the steps is {losses[exit_]:.3g}, "
            f"where predicting the {prediction} of the labels has {constant:.3g} and the last exit {losses[last]:.3g}. "
            f"Train for more steps, or leave it out: exits={others}."
            for exit_ in found
        ]

    def _separates(self, exit_: int) -> bool:
        """Returns whether the logits of an exit tell the labels apart, or too few rows say that they do not.

        Where one label is frequent, a useful exit may remove little of the loss: it is sure of a part of the rows with
        that label, and finds none of the others.
        """
        if self._task.name == REGRESSION:  # has no frequent label
            return False
        labels = torch.cat([each for each, _ in self._batches]).cpu().numpy()
        place = self._exits.index(exit_)
        logits = torch.cat([each[place] for _, each in self._batches]).float().cpu().numpy()
        others = len(labels) - int(np.unique(labels, axis=0, return_counts=True)[1].max())
        value = association(logits, labels)
        learned = has_learned(value, others)
        return learned is None or (learned and separation(value, labels) >= MIN_SEPARATION)


def constant_loss(task: Task, rows: int, sums: torch.Tensor) -> float:
    """Returns the smallest loss of a constant prediction: the entropy of the labels, the mean entropy over the labels
    of a multi-label classification, or the variance of the values of a regression.

    Args:
        task: gives the loss.
        rows: number of labelled rows.
        sums: (2, labels), of the labels, one-hot in single-label classification, and of their squares.
    """
    means, squares = sums.double().cpu() / rows
    if task.name == REGRESSION:
        return (squares - means**2).item()
    if task.name == MULTI_LABEL:
        return torch.special.entr(torch.stack([means, 1 - means])).sum(0).mean().item()
    return torch.special.entr(means).sum().item()


def hardly_learned(losses: Mapping[int, float], constant: float) -> list[int]:
    """Returns the exits whose loss is nearly that of a constant prediction.

    These are exits that have removed less than a fifth of the loss that the last exit has removed. Without a last exit
    that learned, no exit is returned.

    Args:
        losses: exit → mean loss.
        constant: loss of the best constant prediction.
    """
    *earlier, last = sorted(losses)
    removed = constant - losses[last]
    if removed < _LEARNED_LAST * constant:
        return []
    return [exit_ for exit_ in earlier if constant - losses[exit_] < _LEARNED_SHARE * removed]
