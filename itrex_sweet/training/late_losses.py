"""Finds exits that hardly learned, by their losses at the end of a training."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from itrex_sweet.tasks import SINGLE_LABEL
from itrex_sweet.training.attachment import Attachment
from itrex_sweet.training.exit_metrics import RunningMeans
from itrex_sweet.training.losses import IGNORE_INDEX

LATE_SHARE = 0.2  # of the steps of a training, the last ones
_MIN_ROWS = 100
_LEARNED_SHARE = 0.2  # of the last exit's improvement; an exit below it hardly learned
_LEARNED_LAST = 0.3  # share of the entropy that the last exit has removed, else no exit is compared with it


class LateLosses:
    """The exits' losses against the labels, and the frequencies of the labels, in the last steps of a training.

    A process of a distributed training counts its own rows.
    """

    def __init__(self) -> None:
        self._losses = RunningMeans()
        self._counts: torch.Tensor | None = None

    def add(self, attachment: Attachment) -> None:
        """Adds the last batch of an attachment, if its loss is the plain cross-entropy and its rows have labels."""
        if attachment.labels is None or attachment.task.name != SINGLE_LABEL or not attachment.label_loss.is_default:
            return
        labels = attachment.labels[attachment.labels != IGNORE_INDEX]
        counts = torch.bincount(labels, minlength=attachment.model.config.num_labels)
        self._counts = counts if self._counts is None else self._counts + counts
        self._losses.add(attachment.exit_losses)

    def clear(self) -> None:
        """Removes all batches."""
        self._losses.clear()
        self._counts = None

    def warnings(self) -> list[str]:
        """Returns a sentence for each exit that hardly learned; see `hardly_learned`."""
        if self._counts is None or int(self._counts.sum()) < _MIN_ROWS:
            return []
        entropy = torch.distributions.Categorical(self._counts.float()).entropy().item()
        losses = {exit_: total.item() for exit_, total in self._losses.means().items()}
        found = hardly_learned(losses, entropy)
        if not found:
            return []
        others = tuple(exit_ for exit_ in losses if exit_ not in found)
        last = max(losses)
        return [
            f"exit {exit_} hardly learned: its loss in the last {LATE_SHARE:.0%} of the steps is {losses[exit_]:.2f}, "
            f"where predicting the frequencies of the labels has {entropy:.2f} and the last exit {losses[last]:.2f}. "
            f"Train for more steps, or leave it out: exits={others}."
            for exit_ in found
        ]


def hardly_learned(losses: Mapping[int, float], entropy: float) -> list[int]:
    """Returns the exits whose loss is nearly that of predicting the frequencies of the labels.

    These are exits that have removed less than a fifth of the entropy that the last exit has removed. Without a last
    exit that learned, no exit is returned.

    Args:
        losses: exit → mean cross-entropy.
        entropy: of the labels.
    """
    *earlier, last = sorted(losses)
    removed = entropy - losses[last]
    if removed < _LEARNED_LAST * entropy:
        return []
    return [exit_ for exit_ in earlier if entropy - losses[exit_] < _LEARNED_SHARE * removed]
