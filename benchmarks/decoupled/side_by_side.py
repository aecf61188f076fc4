"""Trains many sets of exits beside one fine-tuning, without shared gradients, random numbers or clipping norms."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from decoupled.private_exits import PrivateExit
from decoupled.variants import Variant
from itrex_sweet.families import family_of
from itrex_sweet.training.dropout import ExitGenerators
from itrex_sweet.training.heads import get_module
from itrex_sweet.training.losses import classification_loss, distillation_loss


class ExitSet(nn.Module):
    """The exits of one variant."""

    def __init__(self, model: nn.Module, variant: Variant, seed: int):
        super().__init__()
        self.variant = variant
        hidden = model.config.hidden_size
        self.exits = nn.ModuleList(
            PrivateExit(
                model,
                exit_,
                variant.depth,
                variant.query_rows,
                hidden if variant.earlier and place else 0,
                variant.scratch,
                exit_ in variant.even,
            )
            for place, exit_ in enumerate(variant.exits)
        )
        self.generators = ExitGenerators(seed)

    def forward(self, states: dict[int, torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
        """Returns logits: (rows, exits, labels)."""
        logits, pooled = [], None
        for exit_ in self.exits:
            before = pooled.detach() if pooled is not None and self.variant.earlier else None
            generator = self.generators.of(exit_.exit, mask.device)
            exit_logits, pooled = exit_(states[exit_.exit], mask, generator, before)
            logits.append(exit_logits)
        return torch.stack(logits, dim=1)

    def loss(
        self, states: dict[int, torch.Tensor], mask: torch.Tensor, labels: torch.Tensor | None, last: torch.Tensor
    ) -> torch.Tensor:
        """Returns the sum of the losses of the exits.

        Args:
            states: exit → (rows, tokens, hidden).
            mask: (rows, tokens).
            labels: (rows,); `None` to learn from the last exit only.
            last: (rows, labels), logits of the last exit.
        """
        share = 1.0 if labels is None else self.variant.distillation
        logits = self(states, mask)
        count = logits.shape[1]
        logits, last = logits.flatten(0, 1), last.repeat_interleave(count, dim=0)
        labels = last.argmax(-1) if labels is None else labels.repeat_interleave(count)
        loss = logits.new_zeros(())
        if share < 1.0:
            loss = loss + (1 - share) * classification_loss(logits, labels)
        if share > 0.0:
            loss = loss + share * distillation_loss(logits, last, labels, self.variant.temperature)
        return count * loss


class ExitTrainer:
    """Trains sets of exits with one optimizer.

    Args:
        sets: the sets of exits.
        max_norm: maximum gradient norm of each exit.
    """

    def __init__(self, sets: Iterable[ExitSet], max_norm: float = 1.0):
        self.sets = list(sets)
        self._max_norm = max_norm
        self._optimizer = torch.optim.AdamW(
            [{"params": list(each.parameters()), "lr": 0.0} for each in self.sets], weight_decay=0.0, fused=True
        )

    def step(
        self,
        states: dict[int, torch.Tensor],
        mask: torch.Tensor,
        labels: torch.Tensor | None,
        last: torch.Tensor,
        rate: float,
        peak: float,
    ) -> None:
        """Trains on one batch.

        Args:
            states, mask, labels, last: as for `ExitSet.loss`.
            rate: current learning rate of the trunk.
            peak: peak learning rate of the trunk.
        """
        for each, group in zip(self.sets, self._optimizer.param_groups, strict=True):
            each.train()
            group["lr"] = each.variant.rate * (peak if each.variant.constant else rate)
            each.loss(states, mask, labels, last).backward()
            for exit_ in each.exits:
                nn.utils.clip_grad_norm_([one for one in exit_.parameters() if one.grad is not None], self._max_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()


class States:
    """Captures the inputs of each layer, the mask, the labels and the logits of a model's last forward."""

    def __init__(self, model: nn.Module):
        family = family_of(model.config)
        self.before: dict[int, torch.Tensor] = {}  # exit → (rows, tokens, hidden)
        for place, layer in enumerate(get_module(model, family.layers_path), start=1):
            layer.register_forward_pre_hook(lambda layer, args, place=place: self._store(place, args[0]))
        model.register_forward_hook(self._store_batch, with_kwargs=True)

    def _store(self, place: int, states: torch.Tensor) -> None:
        self.before[place] = states.detach().float()

    def _store_batch(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self.mask = kwargs["attention_mask"]
        self.labels = kwargs.get("labels")
        self.logits = output.logits.detach().float()


class SideBySide(TrainerCallback):
    """Trains sets of exits on the hidden states of the trunk's forward.

    Attributes:
        seconds: time spent on the exits.
        trained: the sets of exits, once training has begun.
    """

    def __init__(self, variants: Iterable[Variant], seed: int):
        self._variants, self._seed = list(variants), seed
        self.seconds = 0.0
        self.trained: list[ExitSet] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self._states = States(model)
        self.trained = [ExitSet(model, variant, self._seed).to(model.device) for variant in self._variants]
        self._trainer = ExitTrainer(self.trained, args.max_grad_norm)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        start, states = time.perf_counter(), self._states
        rate = optimizer.param_groups[0]["lr"]
        self._trainer.step(states.before, states.mask, states.labels, states.logits, rate, args.learning_rate)
        self.seconds += time.perf_counter() - start
