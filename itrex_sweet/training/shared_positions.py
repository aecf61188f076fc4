"""Relative positions that all layers of a model share and receive as an argument: DeBERTa's table, MPNet's bias."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from itrex_sweet.families import Family

# Kind of attention → argument of the layers.
_NAMES = {"disentangled": "rel_embeddings", "biased": "position_bias"}


def shared_positions(family: Family, layer: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """Returns the relative positions that a layer is called with; `None` if it has none."""
    name = _NAMES.get(family.attention)
    return None if name is None else _bound(layer, args, kwargs).arguments.get(name)


def with_shared_positions(
    family: Family, layer: nn.Module, args: tuple, kwargs: Mapping[str, Any], positions: torch.Tensor
) -> tuple[tuple, dict[str, Any]]:
    """Returns the arguments of a layer with other relative positions."""
    bound = _bound(layer, args, kwargs)
    bound.arguments[_NAMES[family.attention]] = positions
    return bound.args, bound.kwargs


def first_token_bias(positions: torch.Tensor) -> torch.Tensor:
    """Returns the part of MPNet's bias, (rows, heads, tokens, tokens), for the first token: (heads, tokens)."""
    return positions[0, :, 0]


def _bound(layer: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
    return inspect.signature(layer.forward).bind(*args, **kwargs)
