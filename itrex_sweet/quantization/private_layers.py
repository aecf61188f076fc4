"""Private layers of exits in the observed float model, which read the inputs of the trunk's layers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from itrex_sweet.families import EXIT_HEADS, PRIVATE_LAYER, Family


def add_private_layers(model: Any, family: Family, exits: Sequence[int]) -> None:
    """Adds copies of the exits' last layers at the paths of their private layers, to load weights into.

    Args:
        model: the Hugging Face classification model.
        exits: with private layers.
    """
    if exits:
        layers = model.get_submodule(family.layers_path)
        copies = {str(exit_): torch.nn.ModuleDict({PRIVATE_LAYER: copy.deepcopy(layers[exit_ - 1])}) for exit_ in exits}
        model.add_module(EXIT_HEADS, torch.nn.ModuleDict(copies))


def run_private_layers(model: Any, family: Family, exits: Sequence[int]) -> list[torch.utils.hooks.RemovableHandle]:
    """Registers hooks that run the private layers in each forward pass of the trunk; returns their handles."""
    layers = model.get_submodule(family.layers_path)
    return [
        layers[exit_ - 1].register_forward_pre_hook(
            _run_layer(model.get_submodule(family.private_layer_path(exit_)), family), with_kwargs=True
        )
        for exit_ in exits
    ]


def _run_layer(layer: torch.nn.Module, family: Family) -> Callable[..., None]:
    def run(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if family.attention == "rotary":
            args, kwargs = without_positions(layer, args, kwargs)
        layer(*args, **kwargs)

    return run


def without_positions(
    layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a layer without rotation, window and padding, as a private layer computes.

    transformers 5 passes the cosine and sine of each position, transformers 4 the positions and a mask of the window;
    RoFormer gets a table of sines and cosines.
    """
    if "sinusoidal_pos" in inspect.signature(layer.forward).parameters:
        bound = inspect.signature(layer.forward).bind(*args, **kwargs)
        bound.arguments["sinusoidal_pos"] = None
        return bound.args, bound.kwargs
    changed = {**kwargs}
    if (rotation := kwargs.get("position_embeddings")) is not None:
        cosine, sine = rotation
        changed |= {"position_embeddings": (torch.ones_like(cosine), torch.zeros_like(sine)), "attention_mask": None}
    if (positions := kwargs.get("position_ids")) is not None:
        changed |= {"position_ids": torch.zeros_like(positions)}
    if "sliding_window_mask" in kwargs:
        changed |= {"sliding_window_mask": kwargs["attention_mask"]}
    return args, changed
