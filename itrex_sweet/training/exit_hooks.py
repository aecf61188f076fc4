"""Forward hooks on the encoder layers, which capture hidden states, compute exits and scale gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.families import Family
from itrex_sweet.training.dropout import ExitGenerators
from itrex_sweet.training.exit_losses import ExitLosses
from itrex_sweet.training.gradients import (
    early_backward,
    is_checkpointed,
    is_checkpointed_reentrantly,
    scale_gradient,
)
from itrex_sweet.training.heads import get_module
from itrex_sweet.training.label_loss import LossFunction
from itrex_sweet.training.shared_positions import first_token_bias, shared_positions, with_shared_positions


class ExitHooks(ExitLosses):
    """The part of an `Attachment` that hooks into the encoder.

    Args:
        model, config, family, loss: as for `ExitLosses`.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family, loss: LossFunction | None = None):
        super().__init__(model, config, family, loss)
        self._index = {layer: index for index, layer in enumerate(self._layers)}
        self._generators = ExitGenerators(torch.initial_seed())
        self._capturing = False
        self._early_backward = False
        self._mask: torch.Tensor | None = None
        self._hidden_states: dict[int, torch.Tensor] = {}
        self._relative_positions: dict[int, dict[str, torch.Tensor | None]] = {}

    def _reset_forward(self) -> None:
        super()._reset_forward()
        self._capturing = self._early_backward = False
        self._hidden_states, self._relative_positions, self._mask = {}, {}, None

    @torch.compiler.disable
    def _before_layer(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        index = self._index[layer]
        changed = False
        table = shared_positions(self._family, layer, args, kwargs)
        # Reads the input of the layer after exit k, not the output of layer k: DeBERTa-v2 has a convolution between the
        # two, and older layers return tuples. A private layer reads the input of the layer that it replaces.
        exit_ = index + 1 if self.config.has_private_layers else index
        if exit_ in self.exits[:-1]:
            name = next((name for name in ("hidden_states", "x") if name in kwargs), None)
            hidden_states = args[0] if args else kwargs[name]
            if self._capturing:
                self._capture(exit_, hidden_states, kwargs, table)
                if not is_checkpointed(layer):
                    self._compute_exit(exit_)
            if self.config.cuts_gradient:
                hidden_states = self._scale_gradient(layer, hidden_states, self.config.scales[self._segment(index) - 1])
                args, kwargs = ((hidden_states, *args[1:]), kwargs) if args else (args, {**kwargs, name: hidden_states})
                changed = True
        if table is not None and table.grad_fn is not None and is_checkpointed_reentrantly(layer):
            raise TrainingSetupError(
                "reentrant gradient checkpointing cannot train DeBERTa-v2's relative-position table, which "
                "all layers read through one norm: pass "
                "gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
        if table is not None and self.config.mode == "sweet" and self._segment(index) > 0:
            # Scales the table's gradient as the hidden states' is scaled between this segment and the first.
            table = scale_gradient(table, math.prod(self.config.scales[: self._segment(index)]))
            args, kwargs = with_shared_positions(self._family, layer, args, kwargs, table)
            changed = True
        return (args, kwargs) if changed else None

    def _capture(
        self, exit_: int, hidden_states: torch.Tensor, kwargs: Mapping[str, Any], table: torch.Tensor | None
    ) -> None:
        """Stores the inputs of an exit, detached for a private layer; `table`: of `shared_positions`."""
        if not self.config.has_private_layers:
            self._hidden_states[exit_] = hidden_states
            return
        self._hidden_states[exit_] = hidden_states.detach()
        self._relative_positions[exit_] = {}
        if table is not None and self._family.attention == "biased":
            self._relative_positions[exit_] = {"bias": first_token_bias(table).detach()}
        elif table is not None:
            self._relative_positions[exit_] = {"table": table.detach(), "relative_pos": kwargs.get("relative_pos")}

    def _scale_gradient(self, layer: nn.Module, hidden_states: torch.Tensor, scale: float) -> torch.Tensor:
        hidden_states = scale_gradient(hidden_states, scale)
        if scale == 0.0 and torch.is_grad_enabled() and is_checkpointed(layer):
            hidden_states.requires_grad_()  # reentrant checkpointing trains a layer only if its input requires grad
        return hidden_states

    @torch.compiler.disable
    def _after_backbone(self, backbone: nn.Module, args: tuple, output: Any) -> None:
        if not self._capturing:
            return
        for exit_ in self.exits[:-1]:
            if exit_ not in self._hidden_states:
                raise TrainingSetupError(
                    f"the input of exit {exit_} was not captured: the layer that follows it was not called as a module."
                )
            if exit_ not in self._logits:
                self._compute_exit(exit_)

    def _compute_exit(self, exit_: int) -> None:
        """Computes an exit's logits from the captured hidden states and, if possible, its backward."""
        head, hidden_states = self._heads()[exit_], self._hidden_states[exit_]
        if self.config.has_private_layers:
            generator = self._generators.of(exit_, hidden_states.device) if head.training else None
            logits = head(hidden_states, generator=generator, mask=self._mask, **self._relative_positions[exit_])
        else:
            shared = get_module(self._base, self._family.head_dense) if self.config.shares_pooler else None
            logits = head(hidden_states[:, 0], shared)
        if self.config.learn_to_exit:
            logits, self._correctness_logits[exit_] = logits[:, :-1], logits[:, -1]
        self._logits[exit_] = logits
        if self._early_backward and self._has_isolated_gradient(exit_):
            parameters = [parameter for _, parameter in self.parameters_by_segment()[exit_]]
            self._early_losses[exit_] = early_backward(self._loss(exit_), parameters)
