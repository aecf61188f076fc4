"""Weights that are numbers: what NaN or infinity has got into is never written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from itrex_sweet.errors import ArtifactError

if TYPE_CHECKING:
    import torch


def first_not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """The first tensor that holds NaN or infinity, in words; `None` if every value is finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not (finite := tensor.isfinite()).all():
            return f"{int((~finite).sum())} of {tensor.numel()} values of {name!r} are NaN or infinite"
    return None


def refuse_not_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuses weights to be written that are not finite.

    Raises:
        ArtifactError: it names the first tensor.
    """
    if (what := first_not_finite(tensors)) is not None:
        raise ArtifactError(
            f"the model is not written: {what}. Its training has diverged, or the checkpoint it started from had: "
            "train again from a sound one, in float32, at a lower learning rate."
        )
