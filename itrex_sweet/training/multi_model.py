"""The Multi-Model baseline of arXiv 2306.02307: a cascade of independent, truncated models, one per exit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from itrex_sweet.config import resolve_exits
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.families import EXIT_HEADS, family_of
from itrex_sweet.training.heads import classification_head, get_module
from itrex_sweet.training.peft_models import is_peft_model, unwrap_peft_model
from itrex_sweet.training.validation import check_model_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer


def truncate(model: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """Returns an independent copy of a classification model with its first layers only.

    Args:
        model: a plain Hugging Face classification model; not changed.
        num_layers: number of layers to keep, from 1.

    Raises:
        ConfigError: the model has fewer layers, or its config is one that no artifact can have.
        TrainingSetupError: the model has exits or PEFT adapters.
        UnsupportedModelError: a family or head that the runtime does not support.
    """
    if is_peft_model(model) or hasattr(model, EXIT_HEADS):
        raise TrainingSetupError("only a plain model can be truncated: remove its exits or adapters first.")
    family = family_of(model.config)
    check_model_config(model.config)
    classification_head(model, family)
    depth = model.config.num_hidden_layers
    if not 1 <= num_layers <= depth:
        raise ConfigError(f"num_layers={num_layers}: pass a number from 1 to {depth}, the layers of the model.")
    model = copy.deepcopy(model)
    path, _, name = family.layers_path.rpartition(".")
    setattr(get_module(model, path), name, nn.ModuleList(get_module(model, family.layers_path)[:num_layers]))
    model.config.num_hidden_layers = num_layers
    if getattr(model.config, "layer_types", None) is not None:
        model.config.layer_types = model.config.layer_types[:num_layers]
    if hasattr(model.config, "sweet"):
        del model.config.sweet
    return model


def train_multi_model(
    model: PreTrainedModel,
    exits: Iterable[int] | None,
    make_trainer: Callable[[PreTrainedModel, int], Trainer],
) -> dict[int, PreTrainedModel]:
    """Trains an independent truncated model for every exit, from the same initial weights.

    Give every trainer the same data, arguments and seed, and a different output folder:

        def make_trainer(model, exit_):
            args = TrainingArguments(output_dir=f"out/exit-{exit_}", num_train_epochs=3)
            return Trainer(model, args, train_dataset=train)

        models = train_multi_model(model, (1, 2, 4, 6), make_trainer)

    Args:
        model: the pretrained model, without exits; not changed.
        exits: counts of layers, the last the full depth; `None` picks `default_exits`.
        make_trainer: (truncated model, exit) → its trainer.

    Returns:
        Exit → trained model; a PEFT model if the trainer has one.

    Raises:
        ConfigError: exits that do not fit the model, or a config that no artifact can have.
        TrainingSetupError: two trainers share an output folder, or a trainer has another model.
    """
    models: dict[int, PreTrainedModel] = {}
    folders: dict[Path, int] = {}
    for exit_ in resolve_exits(exits, model.config.num_hidden_layers):
        trainer = make_trainer(truncate(model, exit_), exit_)
        layers = unwrap_peft_model(trainer.model).config.num_hidden_layers
        if layers != exit_ or hasattr(unwrap_peft_model(trainer.model), EXIT_HEADS):
            raise TrainingSetupError(
                f"make_trainer returned, for exit {exit_}, a trainer of a model with {layers} layers or with "
                "exits: use the model passed to it, without SweetCallback."
            )
        folder = Path(trainer.args.output_dir).resolve()
        if folder in folders:
            raise TrainingSetupError(
                f"exits {folders[folder]} and {exit_} have one output_dir, {str(folder)!r}, and would "
                "overwrite each other's checkpoints: give each its own, such as "
                f"{str(folder / f'exit-{exit_}')!r}."
            )
        folders[folder] = exit_
        trainer.train()
        models[exit_] = trainer.model
    return models
