"""The file contents of an opened artifact, and checks whether the folder has changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact.layout import CONFIG_FILE, SETTINGS_FILE
from itrex_sweet.artifact.manifest import Recorded
from itrex_sweet.artifact.snapshot import FileIdentity, Snapshot
from itrex_sweet.artifact.validation.json_text import parse_object
from itrex_sweet.errors import ArtifactError


@dataclass(frozen=True)
class WeightFile:
    """Identity and hash of a weights file when its artifact was opened.

    Args:
        identity: of the file.
        recorded: size and hash, by the manifest or of what was read; `None` if neither is known.
        verified: whether they have to hold. If not, it may also be the same file, whatever it holds.
    """

    identity: FileIdentity
    recorded: Recorded | None
    verified: bool


class Contents:
    """The files of an opened artifact. Small files stay in memory, weights until they are taken.

    Weights that are asked for again are read again, and have to be the same.

    Args:
        directory: the folder.
        small: contents of all files but the weights.
        weights: the weights files.
        held: contents of those that were read already.
        identity: of the artifact, by `manifest.identity_of`.
        is_verified: whether all of it was compared with a manifest that lists every file.
    """

    def __init__(
        self,
        directory: Path,
        small: Mapping[str, bytes],
        weights: Mapping[str, WeightFile],
        held: Mapping[str, np.ndarray],
        identity: str,
        is_verified: bool = False,
    ):
        self.directory = directory
        self.small, self.weights, self.identity = dict(small), dict(weights), identity
        self.is_verified = is_verified
        self._held = dict(held)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": {}}  # a copy or a pickle reads the weights again

    def read(self, name: str) -> bytes:
        """Returns the contents of a file; errors as of `Artifact.read_file`."""
        if name in self.weights:
            return self.take_weights(name).tobytes()
        if name not in self.small:
            raise ArtifactError(f"{self.directory} was opened without a file {name!r}.")
        return self.small[name]

    def config(self, prefix: str = "") -> dict[str, Any]:
        """`config.json`, or that of a stage."""
        name = prefix + CONFIG_FILE
        return parse_object(self.read(name), self.directory / name)

    def settings(self) -> dict[str, Any] | None:
        """`sweet_config.json`, or `None` where there was none."""
        if SETTINGS_FILE not in self.small:
            return None
        return parse_object(self.small[SETTINGS_FILE], self.directory / SETTINGS_FILE)

    def weights_now(self, name: str) -> np.ndarray:
        """Returns the contents of a weights file and keeps them."""
        held = self._held.get(name)
        return self._read_again(name) if held is None else held

    def take_weights(self, name: str) -> np.ndarray:
        """Returns the contents of a weights file, (bytes,) uint8, and releases them.

        Raises:
            ArtifactError: the file had to be read again, and it is another by now or cannot be read.
        """
        held = self._held.pop(name, None)
        return self._read_again(name) if held is None else held

    def _read_again(self, name: str) -> np.ndarray:
        weights = self.weights[name]
        with Snapshot(self.directory) as folder:
            hashed = weights.verified or folder.identity(name) != weights.identity
            contents, digest, identity = folder.read_array(name, hashed=hashed)
        self.check_weights(name, identity, digest)
        return contents

    def check_weights(self, name: str, identity: FileIdentity, sha256: str | None) -> None:
        """Compares a weights file that was read again with the one that was opened.

        Raises:
            ArtifactError: it is another.
        """
        weights = self.weights[name]
        if identity != weights.identity:
            if weights.recorded is None or sha256 != weights.recorded.sha256:
                raise replaced(self.directory)
        elif weights.verified:
            weights.recorded.check(Recorded(identity.bytes, sha256), self.directory / name)

    def require_same(self, now: Contents) -> None:
        """Compares the folder, opened again, with the opened artifact, without fingerprints and card.

        Raises:
            ArtifactError: it holds something else.
        """
        if now.identity != self.identity or now.weights.keys() != self.weights.keys():
            raise replaced(self.directory)
        for name, weights in self.weights.items():
            if now.weights[name].identity != weights.identity:
                self._read_again(name)

    def follow(self, written: Contents) -> None:
        """Updates the record after this artifact was written to its own folder."""
        self.identity, self.weights = written.identity, dict(written.weights)


def replaced(directory: Path) -> ArtifactError:
    """Returns the error for a folder that has been replaced."""
    return ArtifactError(f"{directory} was replaced since it was opened; open it again.")
