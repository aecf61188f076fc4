"""Writes copies of an opened artifact, with another policy or model card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.contents import replaced
from itrex_sweet.artifact.files import artifact_files
from itrex_sweet.artifact.fingerprints import CALIBRATION, REPORTING, Fingerprints, write_fingerprints
from itrex_sweet.artifact.layout import CARD_FILE, FINGERPRINTS_FILE, FULL_MANIFEST_SCHEMA, SETTINGS_FILE
from itrex_sweet.artifact.manifest import FileRecord
from itrex_sweet.artifact.reading import Artifact, open_artifact, open_staged
from itrex_sweet.artifact.settings import settings_of, write_settings
from itrex_sweet.artifact.snapshot import Snapshot
from itrex_sweet.artifact.staging import staged
from itrex_sweet.policy import Policy


def copy_artifact(
    artifact: Artifact,
    directory: str | os.PathLike,
    policy: Policy | None = None,
    calibration: Mapping[str, Any] | None = None,
    calibrated_on: Fingerprints | None = None,
    costs: Mapping[str, Any] | None = None,
) -> Artifact:
    """Copies an artifact with tokenizer and card, optionally with another policy; the target may be its own folder.

    The calibration record is copied if the policy is unchanged. The copy has the files that were opened.

    Args:
        policy: default: the artifact's own.
        calibration: calibration record of the policy.
        calibrated_on: fingerprints of the calibration rows.
        costs: record of the measured times; default: the artifact's own.

    Raises:
        ConfigError: the policy is for other exits.
        ArtifactError: the target cannot be written, or the artifact's folder was replaced since it was opened;
            the target is unchanged.
    """
    directory = Path(directory)
    policy = artifact.checked(policy or artifact.policy)
    if calibration is None and policy == artifact.policy:
        calibration = artifact.calibration
    costs = costs or artifact.costs
    settings = settings_of(
        artifact.exits,
        policy,
        artifact.provenance,
        artifact.precision,
        artifact.architecture,
        shares_pooler=artifact.shares_pooler,
        stages=[stage.directory.name for stage in artifact.stages],
        **({"quantization": dict(artifact.quantization)} if artifact.quantization else {}),
        **({"calibration": dict(calibration)} if calibration else {}),
        **({"costs": dict(costs)} if costs else {}),
    )
    added = {} if calibrated_on is None else {CALIBRATION: calibrated_on}
    if _is_folder_of(artifact, directory):
        return _rewrite(artifact, settings, added)
    with staged(directory, artifact_files) as staging:
        for name in artifact.contents.weights:
            _place(staging, name).write_bytes(artifact.contents.read_weights(name))
        _write_small(artifact, staging, added)
        write_settings(staging, settings, _verified_records(artifact))
        copy = open_staged(staging, directory)
    return copy


def write_card(artifact: Artifact, card: str, reported_on: Fingerprints | None = None) -> None:
    """Writes the model card of an artifact.

    Args:
        reported_on: fingerprints of the evaluation rows; recorded, so that later calibrations do not use these rows.

    Raises:
        ArtifactError: the folder cannot be written, or was replaced since the artifact was opened; it is unchanged.
    """
    added = {} if reported_on is None else {REPORTING: reported_on}
    _rewrite(artifact, None, added, card)


def _rewrite(
    artifact: Artifact, settings: Mapping[str, Any] | None, added: Mapping[str, Fingerprints], card: str | None = None
) -> Artifact:
    """Writes an opened artifact to its own folder, if the folder has not changed.

    Otherwise a guarantee or evaluation results could be stored with another model.

    Args:
        settings: default: the current ones.
    """
    current = _reopen(artifact)
    settings = current.contents.settings() if settings is None else settings

    def check() -> None:
        latest = _reopen(artifact)
        if latest.contents.small.get(FINGERPRINTS_FILE) != current.contents.small.get(FINGERPRINTS_FILE):
            raise replaced(artifact.directory)  # rows were added that the new list would lack

    with staged(artifact.directory, artifact_files, check) as staging:
        for name in artifact.contents.weights:
            _link_weights(artifact, name, staging)
        _write_small(current, staging, added)
        if card is not None:
            (staging / CARD_FILE).write_text(card, encoding="utf-8")
        if settings is not None and settings["schema_version"] >= FULL_MANIFEST_SCHEMA:
            write_settings(staging, settings, _verified_records(artifact))
        elif settings is not None:
            (staging / SETTINGS_FILE).write_bytes(current.contents.small[SETTINGS_FILE])
        written = open_staged(staging, artifact.directory)
    artifact.contents.update_from(written.contents)
    return written


def _reopen(artifact: Artifact) -> Artifact:
    current = open_artifact(artifact.directory, verify=False, weights=False)
    artifact.contents.check_unchanged(current.contents)
    return current


def _is_folder_of(artifact: Artifact, directory: Path) -> bool:
    try:
        return os.path.samefile(artifact.directory, directory)
    except OSError:
        return False


def _verified_records(artifact: Artifact) -> dict[str, FileRecord]:
    """Returns sizes and hashes of the verified weights files."""
    return {name: file.recorded for name, file in artifact.contents.weights.items() if file.verified}


def _write_small(artifact: Artifact, staging: Path, added: Mapping[str, Fingerprints]) -> None:
    """Writes every file except weights and settings, with additional fingerprints."""
    for name, contents in artifact.contents.small.items():
        if name != SETTINGS_FILE:
            _place(staging, name).write_bytes(contents)
    if added:
        write_fingerprints(staging / FINGERPRINTS_FILE, {**artifact.fingerprints(), **added})


def _link_weights(artifact: Artifact, name: str, staging: Path) -> None:
    """Links the folder's own weights, or copies them if the file system has no links.

    Raises:
        ArtifactError: the folder had other weights when they were linked. The check before the commit does not notice
            this if the folder has the opened ones again by then.
    """
    place = _place(staging, name)
    try:
        os.link(os.path.realpath(artifact.directory / name), place)
    except OSError:
        place.write_bytes(artifact.contents.read_weights(name))
    else:
        with Snapshot(staging, called=artifact.directory) as folder:
            artifact.contents.check_linked(name, folder)


def _place(staging: Path, name: str) -> Path:
    (staging / name).parent.mkdir(exist_ok=True)
    return staging / name
