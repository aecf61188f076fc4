"""Training that diverges, found before the optimizer takes the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from itrex_sweet.artifact.finite import first_not_finite
from itrex_sweet.errors import TrainingDivergedError


class DivergenceCallback(TrainerCallback):
    """Ends training with an error where a gradient is not finite. `SweetCallback` does so by itself; this is for a
    plain model, such as one of `train_multi_model`.

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
        """Looks at the gradients of a step."""
        refuse_divergence(model, state.global_step + 1, {}, gradient_norm(model.parameters()))


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """The L2 norm of all gradients, a float32 scalar; 0 where there is none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients).float() if gradients else torch.zeros(())


def refuse_divergence(model: nn.Module, step: int, losses: Mapping[int, torch.Tensor], norm: torch.Tensor) -> None:
    """Raises where a loss or the gradient of a step is not finite.

    Args:
        model: in training; its weights are those before the step.
        step: of the optimizer, from 1.
        losses: exit → its loss, summed over the step's batches.
        norm: of the step's gradient.

    Raises:
        TrainingDivergedError: it names the step, what is not finite, and what to do.
    """
    values = {f"the loss of exit {exit_}": float(loss) for exit_, loss in losses.items()}
    values["the norm of the gradient"] = float(norm)
    wrong = [f"{what} is {value}" for what, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    weights = first_not_finite(dict(model.named_parameters()))
    if weights is None:
        advice = (
            "The weights are still those of the step before. Lower the learning rate or warm it up (warmup_steps), "
            "keep max_grad_norm above 0, and look at the rows of this batch"
        )
    else:
        advice = f"The weights were not finite before this step ({weights}): start from another checkpoint"
    raise TrainingDivergedError(
        f"training diverged at step {step}: {', '.join(wrong)}. It was ended before the optimizer took the step. "
        f"{advice}."
    )
