"""Putting exits on an unmodified Hugging Face model, and taking them off again."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

import torch
from torch import nn

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.families import EXIT_HEADS, Family, family_of
from itrex_sweet.training.attachment import ATTACHMENT, Attachment
from itrex_sweet.training.heads import ExitHead, head_like_the_models_own, module_at, own_head
from itrex_sweet.training.label_loss import LossFunction
from itrex_sweet.training.peft_models import (
    is_peft_model,
    keep_with_adapter,
    merged_copy,
    refuse_unfit_adapters,
    underlying_model,
)
from itrex_sweet.training.precision import half_type_of
from itrex_sweet.training.saved_heads import saved_heads
from itrex_sweet.training.wrapped_models import refuse_wrapped

logger = logging.getLogger(__name__)


def attach(
    model: nn.Module,
    config: SweetConfig | None = None,
    heads_from: str | os.PathLike | None = None,
    loss: LossFunction | None = None,
) -> Attachment:
    """Puts exits on a Hugging Face classification model, in place; no Trainer needed.

    Create the optimizer afterwards, so that it holds the heads. The settings go to `model.config.sweet`, and
    so into every `config.json` that is saved. The last exit is the model's own head; the others start from
    its weights and those of its layers, or from saved ones.

    Args:
        model: made by `AutoModelForSequenceClassification`, or a PEFT model around one.
        config: the settings; by default those of `model.config.sweet`, or else `SweetConfig()`.
        heads_from: folder of a saved model or adapter to read the exit heads from. By default, for a model
            that was saved with exits, the folder it was loaded from: `from_pretrained` itself drops the
            heads.
        loss: a function that takes the place of the cross-entropy at every exit, the last included:
            `(logits, labels, exit)` or `(logits, labels)` → mean over the rows, a scalar, see `LabelLoss`.

    Raises:
        UnsupportedModelError: a family, task, head or adapter that cannot carry exits.
        ConfigError: exits or class weights that do not fit the model, or a loss that cannot be called so.
        TrainingSetupError: exits are attached already, the model is compiled or wrapped, or the saved heads are not
            found or do not fit.
    """
    refuse_wrapped(model)
    if config is not None and not isinstance(config, SweetConfig):
        raise ConfigError(f"config={config!r}: attach(model, SweetConfig(...)).")
    base = underlying_model(model)
    if hasattr(base, EXIT_HEADS):
        raise TrainingSetupError("the model has exits attached already: call detach(model) first.")
    refuse_unfit_adapters(model)
    family = family_of(base.config)
    own_head(base, family)
    depth = _depth(base, family)
    saved = getattr(base.config, "sweet", None)
    config = _settings(config, saved, depth)
    if isinstance(config.class_weights, tuple) and len(config.class_weights) != base.config.num_labels:
        raise ConfigError(
            f"class_weights={config.class_weights}: {len(config.class_weights)} weights, and the model has "
            f"{base.config.num_labels} labels."
        )

    heads = {exit_: head_like_the_models_own(base, family, config, exit_) for exit_ in config.exits[:-1]}
    if heads and (saved or heads_from is not None):
        _restore(heads, heads_from, base)
    modules = nn.ModuleDict()
    for exit_, head in heads.items():
        head.train(base.training)
        modules[str(exit_)] = keep_with_adapter(model, head) if is_peft_model(model) else head
    base.add_module(EXIT_HEADS, modules)
    base.config.sweet = config.to_dict()
    if (half := half_type_of(model)) is not None:
        logger.warning(
            "The model's weights, and so the exits', are %s: training them loses small updates and may diverge. "
            "Call model.float() before attaching.",
            str(half).removeprefix("torch."),
        )
    attachment = Attachment(model, config, family)
    if loss is not None:
        attachment.lose_by(loss)
    for holder in {base, model}:
        setattr(holder, ATTACHMENT, attachment)
    if config.trains_exits_alone:
        attachment.freeze_model()
    return attachment


def detach(model: nn.Module) -> None:
    """Takes the exits off: hooks, heads and `model.config.sweet`. The model is what it was; its weights stay, and
    what was frozen for the exits' sake trains again.

    Raises:
        TrainingSetupError: the model has no exits.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise TrainingSetupError("the model has no exits attached.")
    attachment.remove()


def attachment_of(model: nn.Module) -> Attachment | None:
    """The exits attached to a model, or `None`."""
    return getattr(underlying_model(model), ATTACHMENT, None)


def plain_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of the Hugging Face classification model with its exit heads, ready for safetensors.

    LoRA is merged, on a copy, and names are those of the plain model and `sweet_exits.*`.

    Args:
        model: a classification model, with exits or without, or a PEFT model around one; left as it is.

    Returns:
        Name → float32 tensor, contiguous, on the CPU, no two sharing memory.

    Raises:
        UnsupportedModelError: adapters that cannot be merged.
    """
    plain = merged_copy(model) if is_peft_model(model) else model
    return {
        name: tensor.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()
        for name, tensor in plain.state_dict().items()
        if tensor.is_floating_point()
    }


def _depth(model: nn.Module, family: Family) -> int:
    layers = module_at(model, family.layers_path)
    depth = model.config.num_hidden_layers
    if not isinstance(layers, nn.ModuleList) or len(layers) != depth:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not hold num_hidden_layers={depth} layers at {family.layers_path!r}."
        )
    return depth


def _settings(config: SweetConfig | None, saved: dict[str, Any] | None, depth: int) -> SweetConfig:
    """The settings to attach with, once they fit those the model was saved with."""
    if not saved:
        return (config or SweetConfig()).resolved(depth)
    before = SweetConfig.from_dict(saved).resolved(depth)
    if config is None:
        return before
    if config.exits is None:
        config = dataclasses.replace(config, exits=before.exits)
    config = config.resolved(depth)
    if _shape_of_heads(config) != _shape_of_heads(before):
        was, asked = (
            f"exits={each.exits}, mode={each.mode!r}, learn_to_exit={each.learn_to_exit}" for each in (before, config)
        )
        raise TrainingSetupError(
            f"the model was saved with {was}, and now {asked} are asked for, which its heads do not fit. Ask for "
            "the former, or start with new heads: `del model.config.sweet` before attaching."
        )
    return config


def _shape_of_heads(config: SweetConfig) -> tuple:
    return config.exits, config.shares_pooler, config.has_private_layers, config.learn_to_exit


def _restore(heads: dict[int, ExitHead], heads_from: str | os.PathLike | None, model: nn.Module) -> None:
    folder = model.config._name_or_path if heads_from is None else heads_from
    weights = saved_heads(folder) if folder and os.path.isdir(folder) else {}
    anew = "To throw the saved heads away and start with new ones, `del model.config.sweet` before attaching."
    if not weights:
        raise TrainingSetupError(
            f"no exit heads found in {str(folder)!r}, and from_pretrained dropped those of the saved model: "
            f"pass the local folder that was saved, attach(model, config, heads_from=FOLDER). {anew}"
        )
    for exit_, head in heads.items():
        mark = f"{exit_}."
        state = {name.removeprefix(mark): tensor for name, tensor in weights.items() if name.startswith(mark)}
        try:
            head.load_state_dict(state)
        except RuntimeError as error:
            raise TrainingSetupError(
                f"the exit heads in {str(folder)!r} do not fit exit {exit_}: {error} {anew}"
            ) from error
    logger.info("Exit heads %s restored from %s.", tuple(heads), folder)
