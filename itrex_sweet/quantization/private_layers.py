"""Exits' private layers beside the float model that is observed, on the states that enter the trunk's layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from itrex_sweet.families import EXIT_HEADS, Family


def add_private_layers(model: Any, family: Family, exits: Sequence[int]) -> None:
    """Adds copies of the exits' last layers at the paths of their private layers, for weights to be loaded into.

    Args:
        model: the Hugging Face classification model.
        exits: that have private layers.
    """
    if exits:
        layers = model.get_submodule(family.layers_path)
        copies = {str(exit_): torch.nn.ModuleDict({"layer": copy.deepcopy(layers[exit_ - 1])}) for exit_ in exits}
        model.add_module(EXIT_HEADS, torch.nn.ModuleDict(copies))


def run_private_layers(model: Any, family: Family, exits: Sequence[int]) -> list[torch.utils.hooks.RemovableHandle]:
    """Makes every forward of the trunk compute the private layers, too, until the handles are removed."""
    layers = model.get_submodule(family.layers_path)
    return [
        layers[exit_ - 1].register_forward_pre_hook(
            _also(model.get_submodule(family.private_layer_path(exit_))), with_kwargs=True
        )
        for exit_ in exits
    ]


def is_private(path: str) -> bool:
    """True of a module in a private layer, whose input matters for the first token alone."""
    return path.startswith(f"{EXIT_HEADS}.")


def _also(layer: torch.nn.Module) -> Callable[..., None]:
    def run(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layer(*args, **kwargs)

    return run
