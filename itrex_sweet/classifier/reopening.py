"""A model in a pickle or a copy: its folder and its settings, by which it is opened again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from itrex_sweet.artifact import Artifact
from itrex_sweet.config import Policy
from itrex_sweet.errors import ArtifactError


@dataclass(frozen=True)
class Origin:
    """The folder and the settings that a model was opened with.

    Args:
        directory: its folder, absolute.
        identity: tells what the folder held from anything else.
        settings: arguments of `load`.
        tokenizer: the one that was read from the folder; `None` if none was.
    """

    directory: str
    identity: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Any = None

    @classmethod
    def of(cls, artifact: Artifact, settings: Mapping[str, Any], tokenizer: Any = None) -> Origin:
        """Notes what was opened."""
        return cls(os.path.abspath(artifact.directory), identity_of(artifact), dict(settings), tokenizer)


def reopen(
    cls: type, directory: str, identity: str, settings: Mapping[str, Any], policy: Policy, own_tokenizer: Any
) -> Any:
    """Opens a model again, as `pickle` and `copy` do.

    Args:
        cls: its class.
        directory, identity, settings: see `Origin`.
        policy: the model's when it was pickled.
        own_tokenizer: that took the place of the folder's; `None` for the folder's.

    Raises:
        ArtifactError: the folder is not there, or holds something else by now.
    """
    if not os.path.isdir(directory):
        raise ArtifactError(
            f"a model is pickled and copied as its folder, and {directory} is not there any more; keep the folder in a "
            "place that lasts."
        )
    model = cls.load(directory, **settings)
    if identity_of(model.artifact) != identity:
        raise ArtifactError(
            f"{directory} holds another artifact than the one that this pickle or copy was made of; load that one anew."
        )
    model.policy = policy
    if own_tokenizer is not None:
        model.tokenizer = own_tokenizer
    return model


def identity_of(artifact: Artifact) -> str:
    """SHA-256 of what was opened: settings, configs, tokenizer and weights.

    The weights count by the hashes in the manifest; where nothing recorded them, by size and date.
    """
    weights = {
        name: file.recorded.sha256 if file.recorded else [file.identity.bytes, file.identity.modified_ns]
        for name, file in artifact.contents.weights.items()
    }
    return hashlib.sha256(json.dumps([artifact.contents.identity, weights], sort_keys=True).encode()).hexdigest()
