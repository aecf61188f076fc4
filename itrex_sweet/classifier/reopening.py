"""Pickles and copies a classifier as its folder and settings, from which it is loaded again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import ArtifactError
from itrex_sweet.policy import Policy


@dataclass(frozen=True)
class Origin:
    """Folder and settings that a classifier was loaded with.

    Args:
        directory: absolute path of the folder.
        identity: hash of the artifact in the folder.
        settings: arguments of `load`.
        tokenizer: tokenizer that was loaded from the folder, or `None`.
    """

    directory: str
    identity: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Any = None

    @classmethod
    def of(cls, artifact: Artifact, settings: Mapping[str, Any], tokenizer: Any = None) -> Origin:
        """Makes the record of an opened artifact."""
        return cls(os.path.abspath(artifact.directory), identity_of(artifact), dict(settings), tokenizer)


def reopen(
    cls: type, directory: str, identity: str, settings: Mapping[str, Any], policy: Policy, own_tokenizer: Any
) -> Any:
    """Loads a pickled or copied classifier again.

    Args:
        cls: its class.
        directory, identity, settings: see `Origin`.
        policy: its policy when it was pickled.
        own_tokenizer: tokenizer that replaced the folder's, or `None`.

    Raises:
        ArtifactError: the folder does not exist any more, or contains another artifact.
    """
    if not os.path.isdir(directory):
        raise ArtifactError(
            f"a model is pickled and copied as its folder, and {directory} is not there any more; keep the folder in a "
            "place that lasts."
        )
    model = cls.load(directory, **settings)
    if identity_of(model.artifact) != identity:
        raise ArtifactError(
            f"{directory} now holds another artifact than when this pickle or copy was made; load the model again."
        )
    model.policy = policy
    if own_tokenizer is not None:
        model.tokenizer = own_tokenizer
    return model


def identity_of(artifact: Artifact) -> str:
    """Computes the SHA-256 of an opened artifact: settings, configs, tokenizer and weights.

    Weights enter by their hash in the manifest, or by size and modification time without one.
    """
    weights = {
        name: file.recorded.sha256 if file.recorded else [file.identity.bytes, file.identity.modified_ns]
        for name, file in artifact.contents.weights.items()
    }
    return hashlib.sha256(json.dumps([artifact.contents.identity, weights], sort_keys=True).encode()).hexdigest()
