"""Detects divergence, a loss or gradient that is not finite, before the optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from itrex_sweet.artifact.finite import first_non_finite
from itrex_sweet.errors import TrainingDivergedError
from itrex_sweet.training.gradients import gradient_norm


class DivergenceCallback(TrainerCallback):
    """Stops the training of a model without exits, such as one of `train_multi_model`, at a gradient that is not
    finite. `SweetCallback` checks this itself.

    Raises:
        TrainingDivergedError: before the optimizer uses such a gradient.
    """

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Checks the gradient norm of a step."""
        check_finite(model, state.global_step + 1, {}, gradient_norm(model.parameters()))


def check_finite(model: nn.Module, step: int, losses: Mapping[int, torch.Tensor], norm: torch.Tensor) -> None:
    """Raises if a loss or the gradient norm of a step is not finite.

    Args:
        model: the model in training, before the step.
        step: number of the optimizer step, from 1.
        losses: exit → its loss, summed over the micro-batches of the step.
        norm: gradient norm of the step.

    Raises:
        TrainingDivergedError: names the step, the values that are not finite, and a remedy.
    """
    values = {f"the loss of exit {exit_}": float(loss) for exit_, loss in losses.items()}
    values["the norm of the gradient"] = float(norm)
    not_finite = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if not not_finite:
        return
    weights = first_non_finite(dict(model.named_parameters()))
    if weights is None:
        advice = (
            "The weights are still those of the step before. Lower the learning rate or warm it up (warmup_steps), "
            "keep max_grad_norm above 0, and look at the rows of this batch"
        )
    else:
        advice = f"The weights were not finite before this step ({weights}): start from another checkpoint"
    raise TrainingDivergedError(
        f"training diverged at step {step}: {', '.join(not_finite)}. It was stopped before the optimizer step. "
        f"{advice}."
    )
