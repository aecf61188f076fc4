"""The exits of one Hugging Face model while they are on it: the hooks that cut, answer and lose."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.families import EXIT_HEADS, Family
from itrex_sweet.training.dropout import ExitGenerators
from itrex_sweet.training.exit_parameters import ExitParameters
from itrex_sweet.training.gradients import cut, spend
from itrex_sweet.training.heads import module_at
from itrex_sweet.training.label_loss import LabelLoss, LossFunction, name_of, share_of_items
from itrex_sweet.training.losses import certainty_loss, checked_labels, exit_loss
from itrex_sweet.training.model_inputs import (
    checked_ids,
    longest_row,
    main_input,
    mask_of_first_token,
    position_of_labels,
)
from itrex_sweet.training.model_outputs import with_loss
from itrex_sweet.training.teacher import Teacher

ATTACHMENT = "_sweet_attachment"  # where a model keeps its Attachment, so that a copied model has its own

WRAPPED_LATER = (
    "PEFT wrapped the model after the exits were attached, so the exit heads are frozen or missing from its "
    "checkpoints: call detach(model), then get_peft_model(model, ...), then attach to what it returns."
)


class Attachment(ExitParameters):
    """The exits of one model: hooks that cut gradients, compute the exits' logits and sum their losses.

    Made by `attach`. While attached, `model(..., labels=labels)` answers as before, except that `output.loss`
    is the plain sum of all exits' cross-entropies in float32 (SWEET, arXiv 2306.02307, section 4), in
    evaluation too; class weights or a loss function of one's own apply at every exit alike, the last included. Where
    exits learn to exit, the errors of what they learn are added to it. In training with distillation, a share of each
    exit's loss compares it with the teacher, without class weights.

    In `decoupled` mode the gradient of `output.loss` on the model's own weights is to the bit what it is without
    exits: the last exit adds the model's own loss, and the others draw dropout from generators of their own. In
    evaluation `output.loss` is the model's own. Where the exits alone are trained, `output.loss` in training is the sum
    of theirs, and labels may be missing: what the model answers then takes their place.

    Every hook is a method of this object, so a deep copy of the model has working exits of its own. Compiled models
    (`torch.compile` after `attach`) run the hooks uncompiled.

    Attributes:
        model: the model that was attached to, as given (a PEFT model, if it was one).
        config: the settings, exits resolved.
        exits: counts of layers, the last the full depth.
        exit_logits: exit → (rows, labels), of the last forward, detached.
        exit_losses: exit → scalar float32, mean over labelled rows, of the last forward, detached: against the labels,
            with class weights or the loss function, without the teacher's part.
        exit_certainties: exit → (rows,) logits of being right, of the last forward, detached; of exits that learn it.
        labels: (rows,) int64 of the last forward, or `None`.
        main_input: (rows, ...) what the last forward was given first: token ids.
        loss_reached: whether a backward in training came through `output.loss` since this was last set to `False`.
        trained_on: the rows it was last trained on, where a Trainer's data told; written into the artifact.
        selected_by: the rows that a checkpoint was chosen by, from `metric_for_best_model`; written into the artifact.
        watcher: called in every labelled forward with exit → its loss, a scalar with its graph, before anything runs
            backward; `None` for nobody. It keeps no tensor that has a graph.
        teacher: that exits learn from under distillation; `None` for the last exit.
    """

    def __init__(self, model: nn.Module, config: SweetConfig, family: Family, loss: LossFunction | None = None):
        super().__init__(model, config, family)
        self.exit_logits: dict[int, torch.Tensor] = {}
        self.exit_losses: dict[int, torch.Tensor] = {}
        self.exit_certainties: dict[int, torch.Tensor] = {}
        self.labels: torch.Tensor | None = None
        self.main_input: torch.Tensor | None = None
        self.label_loss = LabelLoss(config, loss)
        self.loss_reached = False
        self.trained_on: Fingerprints | None = None
        self.selected_by: Fingerprints | None = None
        self.watcher: Callable[[dict[int, torch.Tensor]], None] | None = None
        self.teacher: Teacher | None = None
        self._index = {layer: index for index, layer in enumerate(self._layers)}
        self._position_of_labels = position_of_labels(model, self._base)
        self._capturing = False
        self._generators = ExitGenerators(torch.initial_seed())
        self._mask: torch.Tensor | None = None
        self._hidden: dict[int, torch.Tensor] = {}
        self._relative: dict[int, dict[str, torch.Tensor | None]] = {}
        self._logits: dict[int, torch.Tensor] = {}
        self._certainties: dict[int, torch.Tensor] = {}
        self._label_losses: dict[int, torch.Tensor] = {}
        self._spent: dict[int, torch.Tensor] = {}
        self._spends = False
        self._taught: torch.Tensor | None = None
        self._main_input: torch.Tensor | None = None
        self._num_items: torch.Tensor | int | None = None
        self._hooks = self._register()

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

    def note_longest_row(self, length: int) -> None:
        """Records the tokens of a row that was trained on, if it is the longest so far."""
        if length > (self.config.longest_row or 0):
            self._settle(longest_row=length)

    def seed_dropout(self, *seed: int) -> None:
        """Draws the dropout of exits with private layers, from now on, from generators with this seed."""
        self._generators = ExitGenerators(*seed)

    def remove(self) -> None:
        """Takes hooks, heads and settings off; see `detach`."""
        self.unfreeze_model()
        for hook in self._hooks:
            hook.remove()
        delattr(self._base, EXIT_HEADS)
        del self._base.config.sweet
        for model in {self._base, self.model}:
            delattr(model, ATTACHMENT)

    def _register(self) -> list[torch.utils.hooks.RemovableHandle]:
        # An exit is read before the layer after it runs: inside the model's forward, so that autocast covers it. Where
        # gradient checkpointing runs layers twice, and their hooks, all exits are read when the backbone ends.
        backbone = getattr(self._base, self._family.backbone)
        return [
            self.model.register_forward_pre_hook(self._before_model, with_kwargs=True),
            *(layer.register_forward_pre_hook(self._before_layer, with_kwargs=True) for layer in self._layers),
            backbone.register_forward_hook(self._after_backbone),
            self.model.register_forward_hook(self._after_model),
        ]

    @torch.compiler.disable
    def _before_model(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        self._forget_forward()
        labels = self._labels_in(args, kwargs)
        if model.training:
            self._refuse_silent_training(labels)
        self.labels = None
        inputs = self._inputs(args, kwargs)
        self._main_input = main_input(self._base, inputs)
        checked_ids(self._base, inputs)
        if labels is not None:
            self.labels = checked_labels(labels, self._base.config.num_labels)
            self._num_items = kwargs.get("num_items_in_batch")
        if model.training:
            if torch.is_grad_enabled():
                self.note_longest_row(longest_row(self._base, inputs))
            if self.config.distillation > 0.0 and self.teacher is not None:
                self._taught = self.teacher.logits(inputs)
            if self.config.trains_exits_alone:
                self._switch_dropout_off()
        if self.config.has_private_layers:
            self._mask = mask_of_first_token(inputs)
        self._capturing = True
        self._spends = labels is not None and self._may_spend()
        if self.labels is labels:
            return None
        return self._with_labels(self.labels, args, kwargs)

    def _switch_dropout_off(self) -> None:
        """In all of the model but the exits."""
        for name, child in self._base.named_children():
            if name != EXIT_HEADS:
                child.eval()

    def _inputs(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """The arguments of the model's forward by name, those that are set, labels aside."""
        names = list(inspect.signature(type(self._base).forward).parameters)[1:]  # without self
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        return {k: v for k, v in named.items() if v is not None and k not in ("labels", "num_items_in_batch")}

    def _refuse_silent_training(self, labels: torch.Tensor | None) -> None:
        if labels is None and self.config.trains_exits_alone:
            if self.config.distillation < 1.0:
                raise TrainingSetupError(
                    f"training without labels, and distillation={self.config.distillation:g} takes a share of the "
                    "exits' loss from them: leave distillation out, so that exits learn what the model answers."
                )
            return
        if labels is None:
            raise TrainingSetupError(
                "training without labels: the exits' losses are computed inside the model, so the labels "
                "must reach it. The Trainer takes them away for compute_loss_func and "
                "label_smoothing_factor, and a Trainer subclass may: leave that out, and give class weights or "
                "another loss to SweetCallback(class_weights=..., loss=...), which apply at every exit. For "
                "inference call model.eval() first."
            )
        self.label_loss.refuse_training()
        if self.model is self._base and getattr(self._base, "peft_config", None) is not None:
            raise TrainingSetupError(WRAPPED_LATER)

    @torch.compiler.disable
    def _before_layer(self, layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        index = self._index[layer]
        changed = False
        # The input of the layer after exit k, not the output of layer k: DeBERTa-v2 has a convolution between the two,
        # and older layers return tuples. A private layer reads the input of the layer that it takes the place of.
        exit_ = index + 1 if self.config.has_private_layers else index
        if exit_ in self.exits[:-1]:
            name = next((name for name in ("hidden_states", "x") if name in kwargs), None)
            hidden = args[0] if args else kwargs[name]
            if self._capturing:
                self._capture(exit_, hidden, kwargs)
                if not _checkpoints(layer):
                    self._read(exit_)
            if self.config.cuts_gradient:
                hidden = self._cut_before(layer, hidden, self.config.scales[self._segment(index) - 1])
                args, kwargs = ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, name: hidden})
                changed = True
        table = kwargs.get("rel_embeddings")
        if table is not None and table.grad_fn is not None and _checkpoints_reentrantly(layer):
            raise TrainingSetupError(
                "reentrant gradient checkpointing cannot train DeBERTa-v2's relative-position table, which "
                "all layers read through one norm: pass "
                "gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
        if table is not None and self.config.mode == "sweet" and self._segment(index) > 0:
            # As if the table had passed the same cuts as the hidden states; of the first segment's own, none.
            table = cut(table, math.prod(self.config.scales[: self._segment(index)]))
            kwargs = {**kwargs, "rel_embeddings": table}
            changed = True
        return (args, kwargs) if changed else None

    def _capture(self, exit_: int, hidden: torch.Tensor, kwargs: Mapping[str, Any]) -> None:
        """Keeps what an exit reads. Private layers let no gradient through."""
        if not self.config.has_private_layers:
            self._hidden[exit_] = hidden
            return
        table, relative_pos = (kwargs.get(name) for name in ("rel_embeddings", "relative_pos"))
        self._hidden[exit_] = hidden.detach()
        self._relative[exit_] = {"table": None if table is None else table.detach(), "relative_pos": relative_pos}

    def _cut_before(self, layer: nn.Module, hidden: torch.Tensor, scale: float) -> torch.Tensor:
        hidden = cut(hidden, scale)
        if scale == 0.0 and torch.is_grad_enabled() and _checkpoints(layer):
            hidden.requires_grad_()  # reentrant checkpointing trains a layer only if its input asks for it
        return hidden

    @torch.compiler.disable
    def _after_backbone(self, backbone: nn.Module, args: tuple, output: Any) -> None:
        if not self._capturing:
            return
        for exit_ in self.exits[:-1]:
            if exit_ not in self._hidden:
                raise TrainingSetupError(
                    f"the layer that exit {exit_} reads before was not run through its module: its input is unknown."
                )
            if exit_ not in self._logits:
                self._read(exit_)

    def _read(self, exit_: int) -> None:
        """What an exit says of the hidden states that were captured for it."""
        head, hidden = self._heads()[exit_], self._hidden[exit_]
        if self.config.has_private_layers:
            generator = self._generators.of(exit_, hidden.device) if head.training else None
            said = head(hidden, generator=generator, mask=self._mask, **self._relative[exit_])
        else:
            shared = module_at(self._base, self._family.head_dense) if self.config.shares_pooler else None
            said = head(hidden[:, 0], shared)
        if self.config.learn_to_exit:
            said, self._certainties[exit_] = said[:, :-1], said[:, -1]
        self._logits[exit_] = said
        if self._spends and self._stands_alone(exit_):
            parameters = [parameter for _, parameter in self.parameters_by_segment()[exit_]]
            self._spent[exit_] = spend(self._loss(exit_), parameters)

    @torch.compiler.disable
    def _after_model(self, model: nn.Module, args: tuple, output: Any) -> Any:
        labelled, last = self.labels is not None, self.exits[-1]
        is_tuple = isinstance(output, tuple)
        self._logits[last] = output[int(labelled)] if is_tuple else output.logits
        if model.training and self.teacher is None:
            self._taught = self._logits[last]
        own_loss = (output[0] if is_tuple else output.loss) if labelled else None
        losses = self._losses(own_loss) if labelled or (model.training and self.config.trains_exits_alone) else {}
        logits, certainties, label_losses = self._logits, self._certainties, self._label_losses
        inputs = self._main_input
        self._forget_forward()
        self.main_input = inputs
        self.exit_logits = {exit_: logits[exit_].detach() for exit_ in self.exits}
        self.exit_certainties = {exit_: value.detach() for exit_, value in certainties.items()}
        if not losses:
            return None
        if self.watcher is not None:
            self.watcher(losses)
        self.exit_losses = {exit_: label_losses[exit_] for exit_ in losses}
        if self.config.has_private_layers and not model.training:
            return with_loss(output, losses[last], labelled)
        if self.config.trains_exits_alone:
            losses.pop(last, None)
        loss = torch.stack([each.float() for each in losses.values()]).sum()
        if model.training and loss.requires_grad and not self.loss_reached:
            loss.register_hook(self._note_backward)
        return with_loss(output, loss, labelled)

    def _losses(self, own_loss: torch.Tensor | None) -> dict[int, torch.Tensor]:
        """What each exit adds to the model's loss, with its graph.

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
        """What an exit adds to the model's loss, with its graph."""
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
        """Whether an exit's graph can be let go as soon as its loss is known, where no other exit needs it: nobody
        watches, no exit learns from a later one, and no layer is run again for its gradient.
        """
        return (
            self.model.training
            and torch.is_grad_enabled()
            and self.config.mode == "sweet"
            and self.watcher is None
            and (self.config.distillation == 0.0 or self.teacher is not None)
            and not any(_checkpoints(layer) for layer in self._layers)
        )

    def _stands_alone(self, exit_: int) -> bool:
        """Whether no gradient passes the cuts before and after the exit's segment."""
        place = self.exits.index(exit_)
        return not any(self.config.scales[max(place - 1, 0) : place + 1])

    def _forget_forward(self) -> None:
        """Also what a forward that raised has left behind; no tensor with a graph outlives its forward."""
        self._capturing = False
        self._hidden, self._relative, self._mask = {}, {}, None
        self._logits, self._certainties, self._spent, self._label_losses = {}, {}, {}, {}
        self._taught, self._num_items, self._spends, self._main_input = None, None, False, None
        self.exit_logits, self.exit_losses, self.exit_certainties, self.main_input = {}, {}, {}, None

    def _labels_in(self, args: tuple, kwargs: dict) -> torch.Tensor | None:
        return args[self._position_of_labels] if self._position_of_labels < len(args) else kwargs.get("labels")

    def _with_labels(self, labels: torch.Tensor, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        position = self._position_of_labels
        if position < len(args):
            return (*args[:position], labels, *args[position + 1 :]), kwargs
        return args, {**kwargs, "labels": labels}


def _checkpoints(layer: nn.Module) -> bool:
    return layer.training and getattr(layer, "gradient_checkpointing", False)


def _checkpoints_reentrantly(layer: nn.Module) -> bool:
    function = getattr(layer, "_gradient_checkpointing_func", None)
    return _checkpoints(layer) and getattr(function, "keywords", {}).get("use_reentrant", True)
