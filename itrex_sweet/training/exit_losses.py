"""The losses of a model's exits in one forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from itrex_sweet.config import SweetConfig
from itrex_sweet.families import Family
from itrex_sweet.training.checkpointing import checkpoints
from itrex_sweet.training.exit_parameters import ExitParameters
from itrex_sweet.training.label_loss import LabelLoss, LossFunction, name_of, share_of_items
from itrex_sweet.training.losses import certainty_loss, exit_loss
from itrex_sweet.training.teacher import Teacher


class ExitLosses(ExitParameters):
    """The half of an `Attachment` that turns logits into losses.

    Args:
        model, config, family: as for `ExitParameters`.
        loss: takes the place of the cross-entropy, see `LabelLoss`.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family, loss: LossFunction | None = None):
        super().__init__(model, config, family)
        self.labels: torch.Tensor | None = None
        self.label_loss = LabelLoss(config, loss)
        self.loss_reached = False
        self.watcher: Callable[[dict[int, torch.Tensor]], None] | None = None
        self.teacher: Teacher | None = None
        self._logits: dict[int, torch.Tensor] = {}
        self._certainties: dict[int, torch.Tensor] = {}
        self._label_losses: dict[int, torch.Tensor] = {}
        self._spent: dict[int, torch.Tensor] = {}
        self._taught: torch.Tensor | None = None
        self._num_items: torch.Tensor | int | None = None

    def lose_by(self, function: LossFunction) -> None:
        """Trains every exit with this loss from now on, see `LabelLoss`; its name goes into the settings."""
        self._settle(loss=name_of(function))
        self.label_loss = LabelLoss(self.config, function)

    def weigh_classes(self, weights: tuple[float, ...]) -> None:
        """Trains every exit with these class weights from now on."""
        self._settle(class_weights=weights)
        self.label_loss = LabelLoss(self.config, self.label_loss.function)

    def _settle(self, **changes: Any) -> None:
        self.config = dataclasses.replace(self.config, **changes)
        self._base.config.sweet = self.config.to_dict()

    def _losses(self, own_loss: torch.Tensor | None) -> dict[int, torch.Tensor]:
        """Each exit's part of the model's loss, with its graph.

        Args:
            own_loss: that the model worked out itself; `None` without labels.
        """
        known = self._spent
        losses = {exit_: known[exit_] if exit_ in known else self._loss(exit_) for exit_ in self.exits[:-1]}
        last = self.exits[-1]
        if not self.config.has_private_layers:
            losses[last] = self._loss(last)
        elif own_loss is not None:
            mean = self.label_loss(self._logits[last], self.labels, last)
            self._label_losses[last] = mean.detach()
            scaled = mean * share_of_items(self.labels.to(mean.device), self._num_items)
            losses[last] = own_loss if self.label_loss.is_cross_entropy else scaled
        return losses

    def _loss(self, exit_: int) -> torch.Tensor:
        """An exit's part of the model's loss, with its graph."""
        logits, certainty = self._logits[exit_], self._certainties.get(exit_)
        labels = self._taught.argmax(dim=-1) if self.labels is None else self.labels
        mean = self.label_loss(logits, labels, exit_)
        self._label_losses[exit_] = mean.detach()
        scaled = mean * share_of_items(labels.to(mean.device), self._num_items)
        loss = exit_loss(self.config, scaled, logits, labels, self._taught, self._num_items)
        return loss if certainty is None else loss + certainty_loss(certainty, logits, labels, self._num_items)

    def _note_backward(self, gradient: torch.Tensor | None) -> None:
        # DistributedDataParallel passes all outputs through one node, which hands `None` to those that nobody used.
        self.loss_reached = self.loss_reached or (gradient is not None and bool(gradient != 0))

    def _may_spend(self) -> bool:
        """True if an exit's graph can be let go as soon as its loss is known, where no other exit needs it: nobody
        watches, no exit learns from a later one, and no layer is run again for its gradient.
        """
        return (
            self.model.training
            and torch.is_grad_enabled()
            and self.config.mode == "sweet"
            and self.watcher is None
            and (self.config.distillation == 0.0 or self.teacher is not None)
            and not any(checkpoints(layer) for layer in self._layers)
        )

    def _stands_alone(self, exit_: int) -> bool:
        """True if no gradient passes the cuts before and after the exit's segment."""
        place = self.exits.index(exit_)
        return not any(self.config.scales[max(place - 1, 0) : place + 1])
