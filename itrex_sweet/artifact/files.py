"""Finds, reads and verifies the files of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.contents import Contents, WeightFile
from itrex_sweet.artifact.layout import (
    CARD_FILE,
    FINGERPRINTS_FILE,
    FULL_MANIFEST_SCHEMA,
    INT8,
    INT8_WEIGHTS_FILE,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    is_inside,
    is_manifest_file,
    is_model_file,
    is_tokenizer_file,
)
from itrex_sweet.artifact.manifest import FileRecord, check_listed, check_present, identity_of, recorded_files
from itrex_sweet.artifact.snapshot import Snapshot
from itrex_sweet.errors import ArtifactError

CARD_LIMIT = 16 << 20  # bytes


def read_contents(
    folder: Snapshot,
    settings: Mapping[str, Any] | None,
    precision: str,
    stages: Sequence[str],
    verify: bool,
    weights: bool,
) -> Contents:
    """Reads every file of an artifact.

    Args:
        folder: of the artifact.
        settings: contents of `sweet_config.json`, or `None` if there is none.
        precision: of the weights.
        stages: sub-folders of a cascade's models.
        verify: whether to compare the files with the manifest.
        weights: whether to read the weights now.

    Raises:
        ArtifactError: a file is missing, not listed, changed, or cannot be read.
    """
    directory = folder.directory
    listed = {} if settings is None else _listed(folder, settings, verify)
    present = _present(folder, stages)
    named = [name for prefix in _prefixes(stages) or ("",) for name in weight_names(folder, precision, prefix)]
    lists_all = settings is not None and settings["schema_version"] >= FULL_MANIFEST_SCHEMA
    if settings is not None and verify:
        check_listed(listed, [*named, *present] if lists_all else named, directory)
    small = {name: folder.read(name) for name in sorted({*listed, *present} - {*named}) if folder.has(name)}
    recorded = {name: FileRecord.of(contents) for name, contents in small.items()}
    if verify:
        for name in listed.keys() & small.keys():
            listed[name].check(recorded[name], directory / name)
    opened = {name: WeightFile(folder.identity(name), listed.get(name), verify and name in listed) for name in named}
    held = {}
    for name in named if weights else ():
        held[name], digest, identity = folder.read_array(name, hashed=verify)
        if verify:
            found = FileRecord(identity.bytes, digest)
            listed.get(name, found).check(found, directory / name)
            opened[name] = WeightFile(identity, found, verified=True)
    small.update(_card(folder))
    return Contents(directory, small, opened, held, identity_of(settings, recorded), verify and lists_all)


def _listed(folder: Snapshot, settings: Mapping[str, Any], verify: bool) -> dict[str, FileRecord]:
    """Returns the manifest; without verification, an empty one if it is damaged."""
    try:
        listed = recorded_files(settings, folder.directory / SETTINGS_FILE)
        if verify:
            check_present(listed, [name for name in listed if folder.has(name)], folder.directory)
    except ArtifactError:
        if verify:
            raise
        return {}
    return listed


def _card(folder: Snapshot) -> dict[str, bytes]:
    """Reads the model card, if it is readable; it does not affect answers."""
    try:
        return {CARD_FILE: folder.read(CARD_FILE, CARD_LIMIT)} if folder.has(CARD_FILE) else {}
    except ArtifactError:
        return {}


def _prefixes(stages: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{stage}/" for stage in stages)


def _present(folder: Snapshot, stages: Sequence[str]) -> list[str]:
    """Returns the files in the folder whose names belong to an artifact."""
    return [name for name in folder.names() if is_manifest_file(name)] + [
        f"{stage}/{name}" for stage in stages for name in folder.names(stage) if is_model_file(name)
    ]


def artifact_files(directory: Path) -> set[str]:
    """Returns the names of an artifact's files in a folder, also if its settings are damaged.

    Raises:
        ArtifactError: not a folder, or it cannot be opened.
    """
    with Snapshot(directory) as folder:
        listed = _listed_or_empty(folder)
        stages = {name.split("/")[0] for name in listed if "/" in name}
        names = {*listed, *_present(folder, sorted(stages)), SETTINGS_FILE}
        return {name for name in names if folder.is_file(name)}


def tokenizer_files(directory: Path) -> dict[str, bytes]:
    """Reads the tokenizer files in a folder.

    Raises:
        ArtifactError: a file has changed since it was written, or cannot be read.
    """
    with Snapshot(directory) as folder:
        listed = _listed_or_empty(folder)
        others = {name for name in listed if not is_model_file(name) and name != FINGERPRINTS_FILE and "/" not in name}
        names = {*others, *filter(is_tokenizer_file, folder.names())}
        found = {name: folder.read(name) for name in names if folder.is_file(name)}
    for name in found.keys() & listed.keys():
        listed[name].check(FileRecord.of(found[name]), directory / name)
    return found


def _listed_or_empty(folder: Snapshot) -> dict[str, FileRecord]:
    try:
        return recorded_files(folder.read_json(SETTINGS_FILE), folder.directory / SETTINGS_FILE)
    except ArtifactError:
        return {}


def weight_names(folder: Snapshot, precision: str, prefix: str = "") -> list[str]:
    """Returns the names of the safetensors files of a model, one or several shards.

    Args:
        folder: of the artifact.
        precision: of the model.
        prefix: of a stage's files: its sub-folder with `/`.

    Raises:
        ArtifactError: there are none; pickled weights are not read.
    """
    if precision == INT8:
        folder.identity(prefix + INT8_WEIGHTS_FILE)
        return [prefix + INT8_WEIGHTS_FILE]
    if folder.has(prefix + WEIGHTS_FILE):
        return [prefix + WEIGHTS_FILE]
    if folder.has(prefix + WEIGHTS_INDEX_FILE):
        return [prefix + shard for shard in _shards(folder, prefix + WEIGHTS_INDEX_FILE)]
    where = folder.directory / prefix if prefix else folder.directory
    if any(name.startswith("adapter_model.") for name in folder.names(prefix.rstrip("/"))):
        raise ArtifactError(
            f"{where} holds an adapter, not a model: merge it and write the artifact with "
            "itrex_sweet.save_artifact(model, directory, tokenizer)."
        )
    raise ArtifactError(f"{where} has no {WEIGHTS_FILE}; only safetensors weights are read.")


def _shards(folder: Snapshot, index: str) -> list[str]:
    path = folder.directory / index
    places = folder.read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ArtifactError(f"{path} is damaged: weight_map={places!r} does not map tensor names to files.")
    for shard in places.values():
        if not is_inside(shard) or "/" in shard:
            raise ArtifactError(f"{path} names a file outside its folder: {shard!r}.")
    return sorted(set(places.values()))
