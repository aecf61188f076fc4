"""Checks tensors that were read from an artifact, or that replace its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.artifact.layout import INT8
from itrex_sweet.artifact.stored_tensor import StoredTensor
from itrex_sweet.artifact.validation.tensors import check_tensors
from itrex_sweet.families import family_of

if TYPE_CHECKING:
    from itrex_sweet.artifact.reading import Artifact


def check_tensors_of(artifact: Artifact, tensors: Mapping[str, StoredTensor], of_its_files: bool) -> None:
    """Checks that tensors match the artifact's config and exits.

    Args:
        tensors: by Hugging Face name.
        of_its_files: whether they were read from the artifact's weights; others may be quantized even if the
            artifact is not.

    Raises:
        ArtifactError: one is missing, has another shape or type, or holds numbers that are not finite or out of range.
        UnsupportedModelError: the config is of no family in the table.
    """
    config = artifact.resolved_config()
    check_tensors(
        tensors,
        Architecture(config, family_of(config)),
        artifact.exits,
        shares_pooler=artifact.shares_pooler,
        private_exits=artifact.private_exits,
        learns_to_exit=artifact.learned_to_exit,
        may_be_quantized=not of_its_files or artifact.precision == INT8,
        where=str(artifact.directory),
    )
