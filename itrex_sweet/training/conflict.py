"""Gradient conflict: how far the exits pull a layer's weights in different directions (SWEET, arXiv 2306.02307)."""

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
    """Cosine similarities between exits' gradients on each layer's weights, averaged over measurements.

    Attributes:
        measured: forwards measured.
        sums: (earlier exit, later exit) → sum of cosines per layer the earlier exit reaches, layers from 1.
    """

    measured: int = 0
    sums: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def add(self, cosines: Mapping[tuple[int, int], list[float]]) -> None:
        """One more measurement."""
        self.measured += 1
        for pair, values in cosines.items():
            before = self.sums.get(pair, [0.0] * len(values))
            self.sums[pair] = [old + new for old, new in zip(before, values, strict=True)]

    def mean(self) -> dict[tuple[int, int], list[float]]:
        """(earlier exit, later exit) → cosine of layer 1, 2, ... up to the earlier exit.

        1: both pull the same way; below 0: against each other; exactly 0 where the later one does not reach.
        """
        return {pair: [value / self.measured for value in values] for pair, values in self.sums.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; pairs as `"1-4"`."""
        means = self.mean() if self.measured else {}
        return {"measured": self.measured, "cosines": {f"{a}-{b}": values for (a, b), values in means.items()}}


def gradient_conflict(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[tuple[int, int], list[float]]:
    """Measures one batch; weights and their gradients are left as they are.

    The gradient of each exit's own cross-entropy is taken on all trainable weights of a layer, as one vector. In
    `sweet` mode a later exit's gradient does not reach earlier layers: its cosine is 0, found, not assumed.

    Args:
        model: with exits attached, in the mode (training or evaluation) that dropout shall have.
        batch: model inputs with labels.

    Returns:
        (earlier exit, later exit) → cosine of layer 1, 2, ... up to the earlier exit.

    Raises:
        TrainingSetupError: the model has no exits, or the batch no labels.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise TrainingSetupError("the model has no exits: attach(model) first.")
    found: list[dict[tuple[int, int], list[float]]] = []
    before = attachment.watcher
    attachment.watcher = lambda losses: found.append(_cosines(losses, attachment.layer_parameters()))
    try:
        model(**batch)
    finally:
        attachment.watcher = before
    if not found:
        raise TrainingSetupError("the batch has no labels: a gradient needs a loss.")
    return found[0]


class GradientConflictCallback(TrainerCallback):
    """Measures gradient conflict while a Trainer trains, on the batches that it trains on.

    `Trainer(..., callbacks=[SweetCallback(...), conflict := GradientConflictCallback(every=50)])`; then
    `conflict.result.mean()`. A measured forward costs one backward per exit more; what is trained is the same.

    Args:
        every: forwards of the training model between two measurements, from 1.

    Raises:
        ConfigError: `every` below 1.
        TrainingSetupError: when training begins, no exits on the model, or gradient checkpointing, which runs backward
            once only.
    """

    def __init__(self, every: int = 50):
        if every < 1:
            raise ConfigError(f"every={every}: a number of forwards, from 1.")
        self.every = every
        self.result = GradientConflict()
        self._seen = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Begins to watch."""
        attachment = attachment_of(model)
        if attachment is None:
            raise TrainingSetupError("the model has no exits: put SweetCallback before GradientConflictCallback.")
        if args.gradient_checkpointing:
            raise TrainingSetupError("gradient checkpointing runs backward once; gradient conflict needs one per exit.")
        self.result, self._seen = GradientConflict(), 0

        def watch(losses: dict[int, torch.Tensor]) -> None:
            if not (attachment.model.training and torch.is_grad_enabled()):
                return
            if self._seen % self.every == 0:
                self.result.add(_cosines(losses, attachment.layer_parameters()))
            self._seen += 1

        attachment.watcher = watch

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Stops watching."""
        attachment_of(model).watcher = None


def _cosines(
    losses: Mapping[int, torch.Tensor], layers: list[list[nn.Parameter]]
) -> dict[tuple[int, int], list[float]]:
    gradients = {exit_: _by_layer(loss, layers[:exit_]) for exit_, loss in losses.items()}
    return {
        (early, late): [
            _cosine(one, other) for one, other in zip(gradients[early], gradients[late][:early], strict=True)
        ]
        for early, late in itertools.combinations(sorted(gradients), 2)
    }


def _by_layer(loss: torch.Tensor, layers: list[list[nn.Parameter]]) -> list[torch.Tensor]:
    """Gradient of a loss on each layer as one vector, zeros where it does not reach; the graph stays."""
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
