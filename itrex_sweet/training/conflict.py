"""Gradient conflict: cosine similarity of the exits' gradients on the same weights (SWEET, arXiv 2306.02307)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training.attaching import attachment_of


@dataclass
class GradientConflict:
    """Cosine similarities of the gradients of pairs of exits on each layer, averaged over measurements.

    Attributes:
        measured: number of measured forwards.
        sums: (earlier exit, later exit) → sum of cosines for each layer up to the earlier exit.
    """

    measured: int = 0
    sums: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def add(self, cosines: Mapping[tuple[int, int], list[float]]) -> None:
        """Adds one measurement."""
        self.measured += 1
        for pair, values in cosines.items():
            sums = self.sums.get(pair, [0.0] * len(values))
            self.sums[pair] = [old + new for old, new in zip(sums, values, strict=True)]

    def mean(self) -> dict[tuple[int, int], list[float]]:
        """Returns (earlier exit, later exit) → mean cosine of layer 1, 2, ... up to the earlier exit.

        1 for equal directions, below 0 for conflicting ones, exactly 0 where the later exit has no gradient.
        """
        return {pair: [value / self.measured for value in values] for pair, values in self.sums.items()}

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types, with pairs as `"1-4"`."""
        means = self.mean() if self.measured else {}
        return {"measured": self.measured, "cosines": {f"{a}-{b}": values for (a, b), values in means.items()}}


def gradient_conflict(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[tuple[int, int], list[float]]:
    """Measures gradient conflict on one batch. Weights and `parameter.grad` do not change.

    The gradient of each exit's own loss on all trainable weights of a layer is one vector. In `sweet` mode a later
    exit's gradient does not reach earlier layers, so its measured cosine is 0.

    Args:
        model: with exits attached, in training mode for a forward with dropout, else in evaluation mode.
        batch: model inputs with labels.

    Returns:
        (earlier exit, later exit) → cosine of layer 1, 2, ... up to the earlier exit.

    Raises:
        TrainingSetupError: the model has no exits, or the batch no labels.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise TrainingSetupError("the model has no exits: attach(model) first.")
    measurements: list[dict[tuple[int, int], list[float]]] = []
    previous = attachment.loss_observer
    attachment.loss_observer = lambda losses: measurements.append(_cosines(losses, attachment.layer_parameters()))
    try:
        model(**batch)
    finally:
        attachment.loss_observer = previous
    if not measurements:
        raise TrainingSetupError("the batch has no labels: a gradient needs a loss.")
    return measurements[0]


class GradientConflictCallback(TrainerCallback):
    """Measures gradient conflict on the training batches of a Trainer.

    `Trainer(..., callbacks=[SweetCallback(...), conflict := GradientConflictCallback(every=50)])`; then
    `conflict.result.mean()`. A measured forward costs one more backward per exit; the training does not change.

    Args:
        every: number of training forwards from one measurement to the next, from 1.

    Raises:
        ConfigError: `every` below 1.
        TrainingSetupError: when training begins, if the model has no exits, or with gradient checkpointing, which
            allows one backward only.
    """

    def __init__(self, every: int = 50):
        if every < 1:
            raise ConfigError(f"every={every}: pass a number of forwards, from 1.")
        self.every = every
        self.result = GradientConflict()
        self._forwards = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Sets the loss observer."""
        attachment = attachment_of(model)
        if attachment is None:
            raise TrainingSetupError("the model has no exits: put SweetCallback before GradientConflictCallback.")
        if args.gradient_checkpointing:
            raise TrainingSetupError("gradient checkpointing runs backward once; gradient conflict needs one per exit.")
        self.result, self._forwards = GradientConflict(), 0

        def observe(losses: dict[int, torch.Tensor]) -> None:
            if not (attachment.model.training and torch.is_grad_enabled()):
                return
            if self._forwards % self.every == 0:
                self.result.add(_cosines(losses, attachment.layer_parameters()))
            self._forwards += 1

        attachment.loss_observer = observe

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Removes the loss observer."""
        attachment_of(model).loss_observer = None


def _cosines(
    losses: Mapping[int, torch.Tensor], layers: list[list[nn.Parameter]]
) -> dict[tuple[int, int], list[float]]:
    gradients = {exit_: _gradients_by_layer(loss, layers[:exit_]) for exit_, loss in losses.items()}
    return {
        (early, late): [
            _cosine(one, other) for one, other in zip(gradients[early], gradients[late][:early], strict=True)
        ]
        for early, late in itertools.combinations(sorted(gradients), 2)
    }


def _gradients_by_layer(loss: torch.Tensor, layers: list[list[nn.Parameter]]) -> list[torch.Tensor]:
    """Returns the gradient of a loss on each layer as one vector, zeros without gradient. Retains the graph."""
    flat = [one for layer in layers for one in layer]
    gradients = iter(torch.autograd.grad(loss, flat, retain_graph=True, allow_unused=True))
    vectors = []
    for layer in layers:
        parts = [(one, next(gradients)) for one in layer]
        vectors.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten().float() for p, g in parts]))
    return vectors


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    norms = one.norm() * other.norm()
    return float(one @ other / norms) if norms > 0 else 0.0
