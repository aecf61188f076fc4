"""Writes `sweet_config.json` and the manifest in it."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.layout import (
    CARD_FILE,
    FLOAT_EMBEDDINGS_SCHEMA,
    FORMAT,
    INT8,
    SCHEMA_VERSION,
    SETTINGS_FILE,
    sha256,
)
from itrex_sweet.artifact.manifest import DIGEST, FILES, FileRecord, settings_digest
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.version import __version__

EMBEDDINGS = "embeddings"  # in the record of the quantization: precision of the word embeddings
_SOURCES = ("torch", "transformers", "numpy", "safetensors")


def settings_of(
    exits: Sequence[int],
    policy: Policy,
    provenance: Mapping[str, Any] | None,
    precision: str,
    architecture: str,
    **facts: Any,
) -> dict[str, Any]:
    """Returns the settings of an artifact, without its manifest."""
    has_int8_embeddings = facts.get("quantization", {}).get(EMBEDDINGS) == INT8
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION if has_int8_embeddings else FLOAT_EMBEDDINGS_SCHEMA,
        "architecture": architecture,
        "exits": list(exits),
        "precision": precision,
        "policy": policy.to_dict(),
        "provenance": {"created": created, "versions": library_versions(), **(provenance or {})},
        **facts,
    }


def write_settings(folder: Path, settings: Mapping[str, Any], known: Mapping[str, FileRecord] | None = None) -> None:
    """Writes settings with the manifest of all files in the folder, except the model card, and a digest.

    Args:
        known: sizes and hashes that are already known.

    Raises:
        ConfigError: a value is not a JSON type.
    """
    files = dict(known or {})
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (CARD_FILE, SETTINGS_FILE) and not name.startswith(".") and name not in files:
            files[name] = FileRecord(path.stat().st_size, sha256(path))
    listed = {name: files[name].to_dict() for name in sorted(files)}
    try:
        plain = json.loads(json.dumps({**settings, FILES: listed}))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"records of an artifact must be JSON types: {error}.") from error
    plain[DIGEST] = settings_digest(plain)
    (folder / SETTINGS_FILE).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Returns versions of the packages that affect numeric results, and of Python."""
    versions = {"python": platform.python_version(), "itrex-sweet": __version__}
    for package in _SOURCES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
