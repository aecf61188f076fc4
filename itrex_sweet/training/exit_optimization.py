"""The optimizer steps of a training with exits: dropout seed, gradient clipping, learning rate of the exits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from itrex_sweet.config import DECOUPLED, SweetConfig
from itrex_sweet.training.attaching import attachment_of
from itrex_sweet.training.divergence import check_finite
from itrex_sweet.training.exit_metrics import RunningMeans
from itrex_sweet.training.gradients import clip_by_group, gradient_norm
from itrex_sweet.training.late_losses import LATE_SHARE, LateLosses
from itrex_sweet.training.validation import check_gradients_reached_exits


class ExitLearningRate:
    """Multiplies each optimizer step on some parameters: `p ← p_before + m (p - p_before)`.

    For an optimizer whose step is proportional to its learning rate, such as SGD and AdamW, weight decay included, this
    equals a learning rate m times as high, up to rounding. The optimizer's parameter groups and state do not change,
    and any schedule applies.

    Args:
        multiplier: m, positive.
    """

    def __init__(self, multiplier: float):
        self.multiplier = multiplier
        self._before: list[tuple[nn.Parameter, torch.Tensor]] = []

    def before_step(self, parameters: Iterable[nn.Parameter]) -> None:
        """Copies the parameters that have a gradient."""
        if self.multiplier != 1.0:
            self._before = [(one, one.detach().clone()) for one in parameters if one.grad is not None]

    @torch.no_grad()
    def after_step(self) -> None:
        """Multiplies the change since `before_step`."""
        for parameter, before in self._before:
            parameter.lerp_(before, 1.0 - self.multiplier)
        self._before = []


class ExitOptimization(TrainerCallback):
    """The part of `SweetCallback` that is called at every optimizer step.

    Args:
        config: the settings of the exits.
    """

    def __init__(self, config: SweetConfig):
        self.config = config
        self._losses = RunningMeans()
        self._step_losses = RunningMeans()
        self._late_losses = LateLosses()
        self._max_grad_norm: float | None = None
        self._no_clipping = float("0")  # a separate object: `is` tells it from a 0.0 that the user set
        self._gradient_norm: torch.Tensor | None = None
        self._checks_exits = True
        self._exit_learning_rate = ExitLearningRate(config.exit_lr_multiplier)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Seeds the exits' dropout with the step, so that a resumed training draws the same numbers."""
        attachment_of(model).seed_dropout(args.seed, state.global_step, args.process_index)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Checks that gradients reached the exits, clips them by group, and checks that they are finite."""
        attachment = attachment_of(model)
        if self._checks_exits:
            check_gradients_reached_exits(attachment)
            self._checks_exits = False
        self._step_losses.add(attachment.exit_losses)
        if self._max_grad_norm is None or self._max_grad_norm <= 0.0:
            norm = gradient_norm(model.parameters())
        else:
            norms = clip_by_group(attachment.clipping_groups(), self._max_grad_norm)
            norm = self._gradient_norm = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
            if self._trains_model_beside_exits:
                self._gradient_norm = norms[len(attachment.exits) - 1]  # the norm that is logged without exits
        check_finite(model, state.global_step + 1, self._step_losses.sums(), norm)
        self._step_losses.clear()
        if self.config.has_private_layers:
            self._exit_learning_rate.before_step(parameter for _, parameter in attachment.head_parameters())

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Applies the learning-rate multiplier of the exits."""
        self._exit_learning_rate.after_step()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' losses of the last micro-batch of a step to their running means."""
        attachment = attachment_of(model)
        self._losses.add(attachment.exit_losses)
        if state.global_step > (1.0 - LATE_SHARE) * state.max_steps:
            self._late_losses.add(attachment)

    def on_substep_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' losses of any other micro-batch of a step to their running means."""
        losses = attachment_of(model).exit_losses
        self._losses.add(losses)
        self._step_losses.add(losses)

    @property
    def _trains_model_beside_exits(self) -> bool:
        return self.config.has_private_layers and not self.config.trains_exits_alone

    def _begin_optimization(self, args: TrainingArguments) -> None:
        """Resets the state of an earlier training, and disables gradient clipping by the Trainer."""
        self._checks_exits = True
        for losses in (self._losses, self._step_losses, self._late_losses):
            losses.clear()
        if self.config.mode in ("sweet", DECOUPLED) or self.config.learn_to_exit:
            self._replace_clipping(args)

    def _end_optimization(self, args: TrainingArguments) -> None:
        """Restores gradient clipping by the Trainer."""
        if args.max_grad_norm is self._no_clipping:
            args.max_grad_norm = self._max_grad_norm
        self._max_grad_norm = None
        self._gradient_norm = None

    def _replace_clipping(self, args: TrainingArguments) -> None:
        """Sets `args.max_grad_norm` to 0, so that the Trainer does not clip one global norm.

        After a `train()` that raised, it is 0 already, and the user's value is the stored one.
        """
        if args.max_grad_norm is not self._no_clipping:
            self._max_grad_norm = args.max_grad_norm
            args.max_grad_norm = self._no_clipping
