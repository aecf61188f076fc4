"""Checks the table of rotary angles that RoFormer stores beside its weights, and that this package does not read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.artifact.stored_tensor import StoredTensor
from itrex_sweet.artifact.validation.shapes import sinusoids_of
from itrex_sweet.errors import ArtifactError
from itrex_sweet.families.rotary import inverse_frequencies

_ROUNDING = 0.01  # of a table in bfloat16; another theta differs by up to 2


def check_sinusoids(tensors: Mapping[str, StoredTensor], model: Architecture) -> None:
    """Checks that the table, if it is stored, holds the sines and cosines of the angles that the model computes with.

    Args:
        tensors: by name, with shapes and values already checked.

    Raises:
        ArtifactError: it holds others.
    """
    for expected in sinusoids_of(model):
        if (stored := tensors.get(expected.name)) is None:
            continue
        positions, size = expected.shape
        theta = model.layer_positions[0].theta
        angles = np.outer(np.arange(positions), inverse_frequencies(theta, size))
        table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        if np.abs(stored.as_float32() - table).max() > _ROUNDING:
            raise ArtifactError(
                f"{stored.file}: {expected.name!r} holds other values than the sines and cosines of theta={theta:g}: "
                "models with other positions are not supported."
            )
