"""The losses of a model's exits in one forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from itrex_sweet.config import SweetConfig
from itrex_sweet.families import Family
from itrex_sweet.tasks import task_of
from itrex_sweet.training.exit_parameters import ExitParameters
from itrex_sweet.training.gradients import is_checkpointed
from itrex_sweet.training.label_loss import LabelLoss, LossFunction, function_name, micro_batch_scale
from itrex_sweet.training.losses import exit_loss
from itrex_sweet.training.task_losses import losses_of
from itrex_sweet.training.teacher import Teacher


class ExitLosses(ExitParameters):
    """The part of an `Attachment` that computes losses from logits.

    Args:
        model, config, family: as for `ExitParameters`.
        loss: replaces the loss of the task, see `LabelLoss`.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family, loss: LossFunction | None = None):
        super().__init__(model, config, family)
        self.labels: torch.Tensor | None = None
        self.task = task_of(self._base.config)
        self.label_loss = LabelLoss(config, loss, self.task)
        self.loss_received_gradient = False
        self.loss_observer: Callable[[dict[int, torch.Tensor]], None] | None = None
        self.teacher: Teacher | None = None
        self._logits: dict[int, torch.Tensor] = {}
        self._correctness_logits: dict[int, torch.Tensor] = {}
        self._label_losses: dict[int, torch.Tensor] = {}
        self._early_losses: dict[int, torch.Tensor] = {}
        self._teacher_logits: torch.Tensor | None = None
        self._num_items: torch.Tensor | int | None = None

    def set_loss_function(self, function: LossFunction) -> None:
        """Sets the loss of every exit, see `LabelLoss`; its name goes into the settings."""
        self._update_config(loss=function_name(function))
        self.label_loss = LabelLoss(self.config, function, self.task)

    def set_class_weights(self, weights: tuple[float, ...]) -> None:
        """Sets the class weights of every exit's loss."""
        self._update_config(class_weights=weights)
        self.label_loss = LabelLoss(self.config, self.label_loss.function, self.task)

    def _update_config(self, **changes: Any) -> None:
        self.config = dataclasses.replace(self.config, **changes)
        self._base.config.sweet = self.config.to_dict()

    def _reset_forward(self) -> None:
        self._logits, self._correctness_logits, self._early_losses, self._label_losses = {}, {}, {}, {}
        self._teacher_logits, self._num_items = None, None

    def _losses(self, own_loss: torch.Tensor | None) -> dict[int, torch.Tensor]:
        """Returns each exit's term of the model's loss, with its graph.

        Args:
            own_loss: the loss that the model computed itself; `None` without labels.
        """
        early = self._early_losses
        losses = {exit_: early[exit_] if exit_ in early else self._loss(exit_) for exit_ in self.exits[:-1]}
        last = self.exits[-1]
        if not self.config.has_private_layers:
            losses[last] = self._loss(last)
        elif own_loss is not None:
            mean = self.label_loss(self._logits[last], self.labels, last)
            self._label_losses[last] = mean.detach()
            scaled = mean * micro_batch_scale(self.labels.to(mean.device), self._num_items)
            losses[last] = own_loss if self.label_loss.is_default else scaled
        return losses

    def _loss(self, exit_: int) -> torch.Tensor:
        """Computes one exit's term of the model's loss, with its graph."""
        logits, correctness_logits = self._logits[exit_], self._correctness_logits.get(exit_)
        of_task = losses_of(self.task)
        labels = of_task.targets(self._teacher_logits) if self.labels is None else self.labels
        mean = self.label_loss(logits, labels, exit_)
        self._label_losses[exit_] = mean.detach()
        scaled = mean * micro_batch_scale(labels.to(mean.device), self._num_items)
        teacher_logits = self._teacher_logits if self.config.distillation > 0.0 else None
        loss = exit_loss(self.config, scaled, logits, labels, teacher_logits, self._num_items, of_task.distillation)
        if correctness_logits is None:
            return loss
        return loss + of_task.confidence(correctness_logits, logits, labels, teacher_logits, self._num_items)

    def _record_gradient(self, gradient: torch.Tensor | None) -> None:
        # DistributedDataParallel passes all outputs through one node, which passes `None` to outputs that are not used.
        received = gradient is not None and bool(gradient != 0)
        self.loss_received_gradient = self.loss_received_gradient or received

    def _allows_early_backward(self) -> bool:
        """Returns `True` if an exit's graph may be freed before the model's backward: no loss observer is set, no exit
        learns from a later one, and no layer is checkpointed.
        """
        return (
            self.model.training
            and torch.is_grad_enabled()
            and self.config.mode == "sweet"
            and self.loss_observer is None
            and (self.config.distillation == 0.0 or self.teacher is not None)
            and not any(is_checkpointed(layer) for layer in self._layers)
        )

    def _has_isolated_gradient(self, exit_: int) -> bool:
        """Returns `True` if no gradient flows into or out of the exit's segment."""
        place = self.exits.index(exit_)
        return not any(self.config.scales[max(place - 1, 0) : place + 1])
