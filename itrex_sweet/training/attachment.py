"""The exits of one Hugging Face model while they are attached to it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.families import EXIT_HEADS, Family
from itrex_sweet.training.default_threshold import ThresholdEstimator
from itrex_sweet.training.dropout import ExitGenerators
from itrex_sweet.training.exit_hooks import ExitHooks
from itrex_sweet.training.label_loss import LossFunction
from itrex_sweet.training.model_io import (
    check_token_ids,
    first_token_attention_mask,
    labels_argument_index,
    main_input,
    max_row_length,
    replace_loss,
)
from itrex_sweet.training.task_losses import losses_of

ATTACHMENT = "_sweet_attachment"  # attribute of the model, so that a copied model has an Attachment of its own

WRAPPED_AFTER_ATTACH = (
    "PEFT wrapped the model after the exits were attached, so the exit heads are frozen or missing from its "
    "checkpoints: call detach(model), then get_peft_model(model, ...), then attach to what it returns."
)


class Attachment(ExitHooks):
    """The exits of one model: hooks that cut gradients, compute the exits' logits and sum their losses.

    Created by `attach`. While attached, `model(..., labels=labels)` returns the same output as before, except that
    `output.loss` is the sum of the losses of all exits (of the task: cross-entropy, binary cross-entropy or squared
    error) in float32 (SWEET, arXiv 2306.02307, section 4), in
    evaluation too. Class weights or a custom loss function apply at every exit, the last included. With
    `learn_to_exit`, the loss of the correctness predictions is added. In training with distillation, a share of each
    exit's loss compares it with the teacher, without class weights.

    In `decoupled` mode, the gradient of `output.loss` on the model's own weights equals the gradient without exits, to
    the bit: the last exit contributes the model's own loss, and the others draw dropout from generators of their own.
    In evaluation `output.loss` is the model's own. With `train="exits"`, `output.loss` in training is the sum of the
    losses of the earlier exits, and without labels they learn the predictions of the last exit.

    Every hook is a method of this object, so a deep copy of the model has exits of its own. In a compiled model
    (`torch.compile` after `attach`) the hooks run uncompiled.

    Attributes:
        model: the model passed to `attach` (a PEFT model, if it was one).
        config: the settings, with resolved exits.
        exits: counts of layers, the last the full depth.
        exit_logits: exit → (rows, labels), of the last forward, detached.
        exit_losses: exit → scalar float32, mean over labelled rows, of the last forward, detached: against the labels,
            with class weights or the loss function, without distillation.
        exit_correctness_logits: exit → (rows,) logits of the probability that the exit's prediction is correct, of the
            last forward, detached; with `learn_to_exit` only.
        task: of the model's config.
        labels: of the last forward, or `None`: (rows,) int64, for multi-label classification (rows, labels) float32,
            for regression (rows,) float32.
        main_input: (rows, ...) main input of the last forward: token ids.
        loss_received_gradient: `True` once a backward in training has gone through `output.loss`; may be reset.
        trained_on: fingerprints of the training rows, if a Trainer's data set gave them; written into the artifact.
        selected_by: fingerprints of the rows that a checkpoint was chosen by, from `metric_for_best_model`; written
            into the artifact.
        loss_observer: called in every labelled forward, before backward, with exit → its loss, a scalar with its graph;
            or `None`. It must not keep the losses.
        teacher: the model that exits learn from in distillation; `None` for the last exit.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family, loss: LossFunction | None = None):
        super().__init__(model, config, family, loss)
        self.exit_logits: dict[int, torch.Tensor] = {}
        self.exit_losses: dict[int, torch.Tensor] = {}
        self.exit_correctness_logits: dict[int, torch.Tensor] = {}
        self.main_input: torch.Tensor | None = None
        self.trained_on: Fingerprints | None = None
        self.selected_by: Fingerprints | None = None
        self._threshold_estimator = ThresholdEstimator(self.task)
        self._labels_index = labels_argument_index(model, self._base)
        self._main_input: torch.Tensor | None = None
        self._hooks = self._register()

    def update_longest_row(self, length: int) -> None:
        """Records the number of tokens of a training row in the settings, if it is the longest so far."""
        if length > (self.config.longest_row or 0):
            self._update_config(longest_row=length)

    def seed_dropout(self, *seed: int) -> None:
        """Seeds the generators that draw the dropout of exits with private layers."""
        self._generators = ExitGenerators(*seed)

    def remove(self) -> None:
        """Removes hooks, heads and settings; see `detach`."""
        self.unfreeze_model()
        for hook in self._hooks:
            hook.remove()
        delattr(self._base, EXIT_HEADS)
        del self._base.config.sweet
        for model in {self._base, self.model}:
            delattr(model, ATTACHMENT)

    def _register(self) -> list[torch.utils.hooks.RemovableHandle]:
        # An exit is computed before the layer after it runs, inside the model's forward, so that autocast applies.
        # Gradient checkpointing runs layers, and their hooks, twice: then all exits are computed after the backbone.
        backbone = getattr(self._base, self._family.backbone)
        return [
            self.model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            *(layer.register_forward_pre_hook(self._before_layer, with_kwargs=True) for layer in self._layers),
            backbone.register_forward_hook(self._after_backbone),
            self.model.register_forward_hook(self._after_model),
        ]

    @torch.compiler.disable
    def _before_model(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        self._reset_forward()
        labels = self._get_labels(args, kwargs)
        if model.training:
            self._check_training(labels)
        self.labels = None
        inputs = self._named_inputs(args, kwargs)
        self._main_input = main_input(self._base, inputs)
        check_token_ids(self._base, inputs)
        if labels is not None:
            self.labels = losses_of(self.task).validate(labels, self._base.config.num_labels)
            self._num_items = kwargs.get("num_items_in_batch")
        if model.training:
            if torch.is_grad_enabled():
                self.update_longest_row(max_row_length(self._base, inputs))
            if self.config.distillation > 0.0 and self.teacher is not None:
                self._teacher_logits = self.teacher.logits(inputs)
            if self.config.trains_exits_alone:
                self._disable_model_dropout()
        if self.config.has_private_layers:
            self._mask = first_token_attention_mask(inputs)
        self._capturing = True
        self._early_backward = labels is not None and self._allows_early_backward()
        if self.labels is labels:
            return None
        return self._set_labels(self.labels, args, kwargs)

    def _disable_model_dropout(self) -> None:
        """Sets the model, without the exits, to evaluation mode."""
        for name, child in self._base.named_children():
            if name != EXIT_HEADS:
                child.eval()

    def _named_inputs(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """Returns the arguments of the model's forward by name, those that are set, without labels."""
        names = list(inspect.signature(type(self._base).forward).parameters)[1:]  # without self
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        return {k: v for k, v in named.items() if v is not None and k not in ("labels", "num_items_in_batch")}

    def _check_training(self, labels: torch.Tensor | None) -> None:
        """Raises if a forward in training would silently train something else."""
        if labels is None and self.config.trains_exits_alone:
            if self.config.distillation < 1.0:
                raise TrainingSetupError(
                    f"training without labels, and distillation={self.config.distillation:g} takes a share of the "
                    "exits' loss from them: leave distillation out, so that exits learn the model's predictions."
                )
            return
        if labels is None:
            raise TrainingSetupError(
                "training without labels: the exits' losses are computed inside the model, so the labels "
                "must reach it. The Trainer removes them for compute_loss_func and "
                "label_smoothing_factor, and a Trainer subclass may: leave that out, and give class weights or "
                "another loss to SweetCallback(class_weights=..., loss=...), which apply at every exit. For "
                "inference call model.eval() first."
            )
        self.label_loss.check_trainable()
        if self.model is self._base and getattr(self._base, "peft_config", None) is not None:
            raise TrainingSetupError(WRAPPED_AFTER_ATTACH)

    @torch.compiler.disable
    def _after_model(self, model: nn.Module, args: tuple, output: Any) -> Any:
        labelled, last = self.labels is not None, self.exits[-1]
        is_tuple = isinstance(output, tuple)
        self._logits[last] = output[int(labelled)] if is_tuple else output.logits
        if model.training and self.teacher is None:
            self._teacher_logits = self._logits[last]
        own_loss = (output[0] if is_tuple else output.loss) if labelled else None
        losses = self._losses(own_loss) if labelled or (model.training and self.config.trains_exits_alone) else {}
        logits, correctness_logits, label_losses = self._logits, self._correctness_logits, self._label_losses
        inputs = self._main_input
        self._reset_forward()
        self.main_input = inputs
        self.exit_logits = {exit_: logits[exit_].detach() for exit_ in self.exits}
        self.exit_correctness_logits = {exit_: value.detach() for exit_, value in correctness_logits.items()}
        if (
            model.training
            and torch.is_grad_enabled()
            and self._threshold_estimator.update(self.exit_logits, self.exit_correctness_logits)
        ):
            self._update_config(threshold=self._threshold_estimator.threshold)
        if not losses:
            return None
        if self.loss_observer is not None:
            self.loss_observer(losses)
        self.exit_losses = {exit_: label_losses[exit_] for exit_ in losses}
        if self.config.has_private_layers and not model.training:
            return replace_loss(output, losses[last], labelled)
        if self.config.trains_exits_alone:
            losses.pop(last, None)
        loss = torch.stack([each.float() for each in losses.values()]).sum()
        if model.training and loss.requires_grad and not self.loss_received_gradient:
            loss.register_hook(self._record_gradient)
        return replace_loss(output, loss, labelled)

    def _reset_forward(self) -> None:
        """Clears the state of the last forward, also of one that raised, so that its graph is freed."""
        super()._reset_forward()
        self._main_input = None
        self.exit_logits, self.exit_losses, self.exit_correctness_logits, self.main_input = {}, {}, {}, None

    def _get_labels(self, args: tuple, kwargs: dict) -> torch.Tensor | None:
        return args[self._labels_index] if self._labels_index < len(args) else kwargs.get("labels")

    def _set_labels(self, labels: torch.Tensor, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        index = self._labels_index
        if index < len(args):
            return (*args[:index], labels, *args[index + 1 :]), kwargs
        return args, {**kwargs, "labels": labels}
