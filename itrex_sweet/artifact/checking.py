"""Checking the tensors of an artifact, those of its files or others that are to run in their place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.artifact.layout import INT8
from itrex_sweet.artifact.validation.tensors import BFLOAT16, Stored, check_tensors
from itrex_sweet.families import family_of

if TYPE_CHECKING:
    import torch

    from itrex_sweet.artifact.reading import Artifact


def check_torch_tensors(
    artifact: Artifact, tensors: Mapping[str, torch.Tensor], files: Mapping[str, Path] | None = None
) -> None:
    """Checks that tensors are those of a model of the artifact's config and exits.

    Args:
        tensors: by Hugging Face name.
        files: that hold them, by the same names; without, they come from elsewhere and may be quantized, whatever the
            artifact is.

    Raises:
        ArtifactError: one is missing, has another shape or type, or holds numbers that are not finite or out of range.
        UnsupportedModelError: the config is of no family in the table.
    """
    config = artifact.model_config()
    stored = {
        name: _stored(tensor, artifact.directory if files is None else files[name]) for name, tensor in tensors.items()
    }
    check_tensors(
        stored,
        Architecture(config, family_of(config)),
        artifact.exits,
        shares_pooler=artifact.shares_pooler,
        private_exits=artifact.private_exits,
        learns_to_exit=artifact.learned_to_exit,
        may_be_quantized=files is None or artifact.precision == INT8,
        where=str(artifact.directory),
    )


def _stored(tensor: torch.Tensor, file: Path) -> Stored:
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return Stored(BFLOAT16, tensor.view(torch.int16).numpy().view("u2"), file)
    return Stored(str(tensor.dtype).removeprefix("torch."), tensor.numpy(), file)
