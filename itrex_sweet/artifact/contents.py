"""The file contents of an opened artifact, and checks that its folder has not changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact.layout import CONFIG_FILE, SETTINGS_FILE
from itrex_sweet.artifact.manifest import FileRecord
from itrex_sweet.artifact.snapshot import FileIdentity, Snapshot
from itrex_sweet.artifact.validation.json_text import parse_object
from itrex_sweet.errors import ArtifactError


@dataclass(frozen=True)
class WeightFile:
    """Identity and hash of a weights file when its artifact was opened.

    Args:
        identity: of the file.
        recorded: size and hash, from the manifest or computed when the file was read; `None` if unknown.
        verified: whether size and hash are checked when the file is read again; otherwise the same identity is enough.
    """

    identity: FileIdentity
    recorded: FileRecord | None
    verified: bool


class Contents:
    """The files of an opened artifact. Small files stay in memory; weights stay until `pop_weights` returns them.

    Released weights are read again on request, and must be unchanged.

    Args:
        directory: the folder.
        small: contents of all files but the weights.
        weights: the weights files.
        cached: contents of those that were read already.
        identity: of the artifact, by `manifest.identity_of`.
        is_verified: whether all files were compared with a manifest that lists every file.
    """

    def __init__(
        self,
        directory: Path,
        small: Mapping[str, bytes],
        weights: Mapping[str, WeightFile],
        cached: Mapping[str, np.ndarray],
        identity: str,
        is_verified: bool = False,
    ):
        self.directory = directory
        self.small, self.weights, self.identity = dict(small), dict(weights), identity
        self.is_verified = is_verified
        self._cached = dict(cached)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": {}}  # a copy or a pickle reads the weights again

    def read(self, name: str) -> bytes:
        """Returns the contents of a file; raises as `Artifact.read_file`."""
        if name in self.weights:
            return self.pop_weights(name).tobytes()
        if name not in self.small:
            raise ArtifactError(f"{self.directory} was opened without a file {name!r}.")
        return self.small[name]

    def config(self, prefix: str = "") -> dict[str, Any]:
        """Returns the contents of `config.json`, or of that of a stage."""
        name = prefix + CONFIG_FILE
        return parse_object(self.read(name), self.directory / name)

    def settings(self) -> dict[str, Any] | None:
        """Returns the contents of `sweet_config.json`, or `None` if the artifact has none."""
        if SETTINGS_FILE not in self.small:
            return None
        return parse_object(self.small[SETTINGS_FILE], self.directory / SETTINGS_FILE)

    def read_weights(self, name: str) -> np.ndarray:
        """Returns the contents of a weights file, and keeps them if they are in memory."""
        cached = self._cached.get(name)
        return self._read_again(name) if cached is None else cached

    def pop_weights(self, name: str) -> np.ndarray:
        """Returns the contents of a weights file, (bytes,) uint8, and releases them.

        Raises:
            ArtifactError: the file was read again and has changed, or cannot be read.
        """
        cached = self._cached.pop(name, None)
        return self._read_again(name) if cached is None else cached

    def _read_again(self, name: str) -> np.ndarray:
        weights = self.weights[name]
        with Snapshot(self.directory) as folder:
            hashed = weights.verified or folder.identity(name) != weights.identity
            contents, digest, identity = folder.read_array(name, hashed=hashed)
        self.check_weights(name, identity, digest)
        return contents

    def check_weights(self, name: str, identity: FileIdentity, sha256: str | None) -> None:
        """Checks that a weights file that was read again is unchanged.

        Raises:
            ArtifactError: the file has changed.
        """
        weights = self.weights[name]
        if identity != weights.identity:
            if weights.recorded is None or sha256 != weights.recorded.sha256:
                raise replaced(self.directory)
        elif weights.verified:
            weights.recorded.check(FileRecord(identity.bytes, sha256), self.directory / name)

    def check_linked(self, name: str, folder: Snapshot) -> None:
        """Checks that a weights file of another folder is the one of this artifact.

        Raises:
            ArtifactError: it is another file with other contents.
        """
        if folder.identity(name) != self.weights[name].identity:
            _, digest, identity = folder.read_array(name)
            self.check_weights(name, identity, digest)

    def check_unchanged(self, current: Contents) -> None:
        """Checks that the folder, opened again, is unchanged, except for fingerprints and model card.

        Raises:
            ArtifactError: the folder has changed.
        """
        if current.identity != self.identity or current.weights.keys() != self.weights.keys():
            raise replaced(self.directory)
        for name, weights in self.weights.items():
            if current.weights[name].identity != weights.identity:
                self._read_again(name)

    def update_from(self, written: Contents) -> None:
        """Updates the record after this artifact was written to its own folder."""
        self.identity, self.weights = written.identity, dict(written.weights)


def replaced(directory: Path) -> ArtifactError:
    """Returns the error for a folder that has been replaced."""
    return ArtifactError(f"{directory} was replaced since it was opened; open it again.")
