"""Attaches exits to an unmodified Hugging Face model, and detaches them."""

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
from itrex_sweet.tasks import REGRESSION, SINGLE_LABEL, Task, task_of
from itrex_sweet.training.attachment import ATTACHMENT, Attachment
from itrex_sweet.training.heads import ExitHead, classification_head, create_exit_head, get_module
from itrex_sweet.training.label_loss import LossFunction
from itrex_sweet.training.peft_models import (
    check_adapters,
    is_peft_model,
    merged_model_copy,
    unwrap_peft_model,
    wrap_as_module_to_save,
)
from itrex_sweet.training.precision import half_precision_dtype
from itrex_sweet.training.saved_heads import load_head_weights
from itrex_sweet.training.validation import check_model_config, check_not_wrapped

logger = logging.getLogger(__name__)


def attach(
    model: nn.Module,
    config: SweetConfig | None = None,
    heads_from: str | os.PathLike | None = None,
    loss: LossFunction | None = None,
) -> Attachment:
    """Attaches exits to a Hugging Face classification model, in place. It needs no Trainer.

    Create the optimizer afterwards, so that it holds the heads. The settings are stored in `model.config.sweet`, and
    so in every `config.json` that is saved. The last exit is the model's own head; the others are initialized from
    its weights and those of its layers, or from saved heads.

    Args:
        model: an `AutoModelForSequenceClassification`, or a PEFT model around one.
        config: the settings; by default those of `model.config.sweet`, or else `SweetConfig()`.
        heads_from: folder of a saved model or adapter to read the exit heads from. By default, for a model that was
            saved with exits, the folder that it was loaded from, since `from_pretrained` drops the heads.
        loss: replaces the loss of the task at every exit, the last included: `(logits, labels, exit)` or
            `(logits, labels)` → mean over the rows, a scalar, see `LabelLoss`.

    Returns:
        The attached exits.

    Raises:
        UnsupportedModelError: a family, task, head or adapter that exits do not support.
        ConfigError: exits or class weights that do not fit the model, a config that no artifact can have, such as label
            ids with gaps, or a loss with other arguments.
        TrainingSetupError: exits are attached already, the model is compiled or wrapped, or the saved heads are
            missing or do not fit.
    """
    check_not_wrapped(model)
    if config is not None and not isinstance(config, SweetConfig):
        raise ConfigError(f"config={config!r}: pass a SweetConfig, attach(model, SweetConfig(...)).")
    base = unwrap_peft_model(model)
    if hasattr(base, EXIT_HEADS):
        raise TrainingSetupError("the model has exits attached already: call detach(model) first.")
    check_adapters(model)
    family = family_of(base.config)
    check_model_config(base.config)
    classification_head(base, family)
    depth = _num_layers(base, family)
    saved = getattr(base.config, "sweet", None)
    task = task_of(base.config)
    config = _resolve_settings(config, saved, depth, task)
    if isinstance(config.class_weights, tuple) and len(config.class_weights) != base.config.num_labels:
        raise ConfigError(
            f"class_weights={config.class_weights}: {len(config.class_weights)} weights, and the model has "
            f"{base.config.num_labels} labels."
        )

    heads = {exit_: create_exit_head(base, family, config, exit_) for exit_ in config.exits[:-1]}
    if heads and (saved or heads_from is not None):
        _load_heads(heads, heads_from, base)
    modules = nn.ModuleDict()
    for exit_, head in heads.items():
        head.train(base.training)
        modules[str(exit_)] = wrap_as_module_to_save(model, head) if is_peft_model(model) else head
    base.add_module(EXIT_HEADS, modules)
    base.config.sweet = config.to_dict()
    if task.name != SINGLE_LABEL:
        base.config.problem_type = task.name  # else the model infers it from the first labels
    if (half := half_precision_dtype(model)) is not None:
        logger.warning(
            "The model's weights, and so the exits', are %s: training them loses small updates and may diverge. "
            "Call model.float() before attaching.",
            str(half).removeprefix("torch."),
        )
    attachment = Attachment(model, config, family)
    if loss is not None:
        attachment.set_loss_function(loss)
    for holder in {base, model}:
        setattr(holder, ATTACHMENT, attachment)
    if config.trains_exits_alone:
        attachment.freeze_model()
    return attachment


def settings_for_task(config: SweetConfig, task: Task) -> SweetConfig:
    """Returns the settings with what a task needs: the exits of a regression estimate their error.

    Raises:
        ConfigError: class weights for a regression, or a regression with one exit.
    """
    if task.name != REGRESSION:
        return config
    if config.exits is not None and len(config.exits) < 2:
        raise ConfigError(f"exits={config.exits}: a regression with one exit cannot leave early; name at least two.")
    if config.class_weights is not None:
        raise ConfigError(f"class_weights={config.class_weights!r}: a regression has no classes; leave them out.")
    return dataclasses.replace(config, learn_to_exit=True)


def detach(model: nn.Module) -> None:
    """Removes hooks, heads and `model.config.sweet` from a model, and unfreezes what `attach` froze. Its weights do not
    change.

    Raises:
        TrainingSetupError: the model has no exits.
    """
    attachment = attachment_of(model)
    if attachment is None:
        raise TrainingSetupError("the model has no exits attached.")
    attachment.remove()


def attachment_of(model: nn.Module) -> Attachment | None:
    """Returns the exits attached to a model, or `None`."""
    return getattr(unwrap_peft_model(model), ATTACHMENT, None)


def plain_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the weights of the Hugging Face classification model and its exit heads, for safetensors.

    LoRA adapters are merged, in a copy. The names are those of the plain model and `sweet_exits.*`.

    Args:
        model: a classification model, with exits or without, or a PEFT model around one; not changed.

    Returns:
        Name → float32 tensor, contiguous, on the CPU, without shared memory.

    Raises:
        UnsupportedModelError: adapters that cannot be merged.
    """
    plain = merged_model_copy(model) if is_peft_model(model) else model
    return {
        name: tensor.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()
        for name, tensor in plain.state_dict().items()
        if tensor.is_floating_point()
    }


def _num_layers(model: nn.Module, family: Family) -> int:
    layers = get_module(model, family.layers_path)
    depth = model.config.num_hidden_layers
    if not isinstance(layers, nn.ModuleList) or len(layers) != depth:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not have num_hidden_layers={depth} layers at {family.layers_path!r}."
        )
    return depth


def _resolve_settings(config: SweetConfig | None, saved: dict[str, Any] | None, depth: int, task: Task) -> SweetConfig:
    """Returns the settings to attach with, checked against those that the model was saved with."""
    if not saved:
        return settings_for_task((config or SweetConfig()).resolved(depth), task)
    saved_config = SweetConfig.from_dict(saved).resolved(depth)
    if config is None:
        return saved_config
    if config.exits is None:
        config = dataclasses.replace(config, exits=saved_config.exits)
    config = settings_for_task(config.resolved(depth), task)
    if _head_architecture(config) != _head_architecture(saved_config):
        old, new = (
            f"exits={each.exits}, mode={each.mode!r}, learn_to_exit={each.learn_to_exit}"
            for each in (saved_config, config)
        )
        raise TrainingSetupError(
            f"the model was saved with {old}, and its heads do not fit the requested {new}. Request the saved "
            "settings, or start with new heads: `del model.config.sweet` before attaching."
        )
    return config


def _head_architecture(config: SweetConfig) -> tuple:
    return config.exits, config.shares_pooler, config.has_private_layers, config.learn_to_exit


def _load_heads(heads: dict[int, ExitHead], heads_from: str | os.PathLike | None, model: nn.Module) -> None:
    folder = model.config._name_or_path if heads_from is None else heads_from
    weights = load_head_weights(folder) if folder and os.path.isdir(folder) else {}
    advice = "To discard the saved heads and start with new ones, `del model.config.sweet` before attaching."
    if not weights:
        raise TrainingSetupError(
            f"no exit heads found in {str(folder)!r}, and from_pretrained dropped those of the saved model: "
            f"pass the local folder that was saved, attach(model, config, heads_from=FOLDER). {advice}"
        )
    for exit_, head in heads.items():
        prefix = f"{exit_}."
        state = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        try:
            head.load_state_dict(state)
        except RuntimeError as error:
            raise TrainingSetupError(
                f"the exit heads in {str(folder)!r} do not fit exit {exit_}: {error} {advice}"
            ) from error
    logger.info("Exit heads %s restored from %s.", tuple(heads), folder)
