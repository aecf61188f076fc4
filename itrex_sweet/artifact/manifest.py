"""The manifest in `sweet_config.json`, and the digest of that file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.layout import FINGERPRINTS_FILE, SETTINGS_FILE, is_inside
from itrex_sweet.errors import ArtifactError

FILES, DIGEST = "files", "digest"
_TRAINER = f"If a Trainer saved a model over an artifact here, delete {SETTINGS_FILE}."


@dataclass(frozen=True)
class FileRecord:
    """FileRecord size and hash of a file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, contents: bytes) -> FileRecord:
        """Computes them from the contents of a file."""
        return cls(len(contents), hashlib.sha256(contents).hexdigest())

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {"bytes": self.bytes, "sha256": self.sha256}

    def check(self, found: FileRecord, path: Path) -> None:
        """Checks that a file matches the record.

        Raises:
            ArtifactError: size or hash differ.
        """
        if found.bytes != self.bytes:
            raise ArtifactError(
                f"{path} has {found.bytes} bytes, {self.bytes} were written: truncated, or another file. {_TRAINER}"
            )
        if found.sha256 != self.sha256:
            raise ArtifactError(
                f"{path} is not the file that was written (its SHA-256 differs): corrupt, changed by hand, or from "
                f"another artifact. {_TRAINER}"
            )


def recorded_files(settings: Mapping[str, Any], path: Path) -> dict[str, FileRecord]:
    """Returns the records of the manifest, by file name.

    Raises:
        ArtifactError: the manifest is damaged.
    """
    files = settings.get(FILES)
    if not isinstance(files, dict):
        raise ArtifactError(f"{path} is damaged: files={files!r} is not a list of files. Write the artifact again.")
    recorded = {}
    for name, entry in files.items():
        if not is_inside(name):
            raise ArtifactError(f"{path} is damaged: files names {name!r}, which is not a file inside its folder.")
        size, digest = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(digest, str):
            raise ArtifactError(f"{path} is damaged: files[{name!r}]={entry!r} has no size in bytes and SHA-256.")
        recorded[name] = FileRecord(size, digest)
    return recorded


def check_present(listed: Iterable[str], present: Iterable[str], directory: Path) -> None:
    """Raises `ArtifactError` if a listed file is missing."""
    for name in sorted(set(listed) - set(present)):
        raise ArtifactError(f"{directory / name} is missing; copy the whole folder again.")


def check_listed(listed: Iterable[str], present: Iterable[str], directory: Path) -> None:
    """Raises `ArtifactError` if a file is not listed."""
    for name in sorted(set(present) - set(listed)):
        raise ArtifactError(
            f"{directory / name} is not listed in {SETTINGS_FILE}, so it may not belong to this artifact. Remove "
            "it; or, if it was put there on purpose, open the folder with verify=False: save_pretrained then lists it. "
            f"{_TRAINER}"
        )


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Computes the SHA-256 of settings in canonical JSON, without the digest."""
    remaining = {key: value for key, value in settings.items() if key != DIGEST}
    return hashlib.sha256(_canonical(remaining)).hexdigest()


def check_digest(settings: Mapping[str, Any], path: Path) -> None:
    """Checks the settings against their digest.

    Raises:
        ArtifactError: the settings have changed.
    """
    if settings.get(DIGEST) != settings_digest(settings):
        raise ArtifactError(
            f"{path} was damaged, or changed by hand, since it was written (its {DIGEST} differs). To change a policy: "
            "model.policy = ... and model.save_pretrained(DIR), or itrex-sweet calibrate. verify=False opens it as it "
            "is."
        )


def identity_of(settings: Mapping[str, Any] | None, small: Mapping[str, FileRecord]) -> str:
    """Computes the SHA-256 of an opened artifact without its fingerprints, which evaluation extends.

    Args:
        settings: contents of `sweet_config.json`, or `None` if there is none.
        small: the files other than the weights.
    """
    if settings is not None:
        settings = {key: value for key, value in settings.items() if key != DIGEST}
        if isinstance(settings.get(FILES), dict):
            settings[FILES] = {name: entry for name, entry in settings[FILES].items() if name != FINGERPRINTS_FILE}
    files = {name: file.sha256 for name, file in small.items() if name != FINGERPRINTS_FILE}
    return hashlib.sha256(_canonical([settings, files])).hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii")
