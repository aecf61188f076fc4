"""Converts float weights to the tensors of an INT8 artifact: linear layers and word embeddings."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch

from itrex_sweet.artifact import Artifact
from itrex_sweet.artifact.validation.tensors import MIN_SCALE
from itrex_sweet.families import family_of
from itrex_sweet.quantization.inc_linears import layers_by_input
from itrex_sweet.quantization.observation import LinearObservation

WEIGHT_MAX = 127  # weights are in [-127, 127]


def quantizable_layers(artifact: Artifact) -> list[str]:
    """Returns the module paths of the encoder's linear layers in order, then those of the exits' private layers.

    All other layers stay in float.
    """
    config = artifact.model_config()
    by_input = layers_by_input(family_of(config), config.num_hidden_layers, artifact.private_exits)
    return [path for paths in by_input for path in paths]


def word_embeddings(artifact: Artifact) -> str:
    """Returns the module path of the table of word embeddings."""
    return family_of(artifact.model_config()).word_embeddings


def pack(
    tensors: Mapping[str, torch.Tensor],
    observed: Mapping[str, LinearObservation],
    float_layers: Collection[str] = (),
    tables: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Replaces the weights of linear layers with int8 weights, scales, zero points and smoothing factors.

    Args:
        tensors: of a float32 artifact, by name.
        observed: scales, zero points and smoothing by module path.
        float_layers: module paths to leave in float.
        tables: module paths of embedding tables to replace with int8 tables and a scale per entry.

    Returns:
        all tensors of the INT8 artifact (`itrex_sweet.artifact` names them).
    """
    packed = dict(tensors)
    for path, found in observed.items():
        if path not in float_layers:
            packed.update(
                {f"{path}.{name}": tensor for name, tensor in _quantize_weight(tensors[f"{path}.weight"], found)}
            )
    for path in tables:
        if path not in float_layers:
            packed.update({f"{path}.{name}": tensor for name, tensor in _quantize_table(tensors[f"{path}.weight"])})
    return packed


def _quantize_table(table: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    table = table.float()
    scale = table.abs().amax(dim=1) / WEIGHT_MAX
    scale = torch.where(scale < MIN_SCALE, 1.0, scale)  # of an entry of zeros, such as that of the padding token
    integers = torch.round(table / scale[:, None]).clamp(-WEIGHT_MAX, WEIGHT_MAX).to(torch.int8)
    return [("weight", integers), ("weight_scale", scale)]


def _quantize_weight(weight: torch.Tensor, found: LinearObservation) -> list[tuple[str, torch.Tensor]]:
    weight = weight.float()
    if found.input_smoothing is not None:
        weight = weight / found.input_smoothing
    scale = torch.as_tensor(found.weight_scale, dtype=torch.float32)
    integers = torch.round(weight / scale[:, None]).clamp(-WEIGHT_MAX, WEIGHT_MAX).to(torch.int8)
    parts = [("weight", integers), ("weight_scale", scale)]
    if found.input_scale is not None:
        parts.append(("input_scale", torch.tensor(found.input_scale, dtype=torch.float32)))
        parts.append(("input_zero_point", torch.tensor(found.input_zero_point, dtype=torch.int32)))
    if found.input_smoothing is not None:
        parts.append(("input_smoothing", torch.as_tensor(found.input_smoothing, dtype=torch.float32)))
    return parts
