"""Checks that weights are finite before they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from itrex_sweet.errors import ArtifactError

if TYPE_CHECKING:
    import torch


def first_non_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Describes the first tensor that contains NaN or infinity; returns `None` if every value is finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
            return f"{int((~finite).sum())} of {tensor.numel()} values of {name!r} are NaN or infinite"
    return None


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Checks that weights are finite.

    Raises:
        ArtifactError: a value is NaN or infinite; the message names the first tensor.
    """
    if (what := first_non_finite(tensors)) is not None:
        raise ArtifactError(
            f"the model is not written: {what}. Its training has diverged, or the checkpoint it started from had: "
            "train again from a sound one, in float32, at a lower learning rate."
        )
