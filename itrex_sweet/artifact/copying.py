"""Writes copies of an opened artifact, with another policy or model card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.artifact.contents import replaced
from itrex_sweet.artifact.files import artifact_files
from itrex_sweet.artifact.fingerprints import CALIBRATION, REPORTING, Fingerprints, write_fingerprints
from itrex_sweet.artifact.layout import CARD_FILE, FINGERPRINTS_FILE, LISTS_ALL_FILES, SETTINGS_FILE
from itrex_sweet.artifact.manifest import Recorded
from itrex_sweet.artifact.reading import Artifact, open_artifact, open_staged
from itrex_sweet.artifact.settings import settings_of, write_settings
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

    What was recorded of a calibration stays with the policy it was made for. The copy has the files that were opened.

    Args:
        policy: the artifact's own if absent.
        calibration: what the policy rests on, to record.
        calibrated_on: the rows of that.
        costs: what was measured of time, to record; the artifact's own if absent.

    Raises:
        ConfigError: a policy for other exits.
        ArtifactError: the target cannot be written, or the artifact's folder was replaced since it was opened; what
            the target held before is untouched.
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
            _place(staging, name).write_bytes(artifact.contents.weights_now(name))
        _write_small(artifact, staging, added)
        write_settings(staging, settings, _known(artifact))
        copy = open_staged(staging, directory)
    return copy


def write_card(artifact: Artifact, card: str, reported_on: Fingerprints | None = None) -> None:
    """Writes the model card of an artifact.

    Args:
        reported_on: the rows whose figures the card holds; recorded, so that they are not calibrated on later.

    Raises:
        ArtifactError: the folder cannot be written, or was replaced since the artifact was opened; it is untouched.
    """
    added = {} if reported_on is None else {REPORTING: reported_on}
    _rewrite(artifact, None, added, card)


def _rewrite(
    artifact: Artifact, settings: Mapping[str, Any] | None, added: Mapping[str, Fingerprints], card: str | None = None
) -> Artifact:
    """Writes an opened artifact to its own folder again, if that has not changed.

    Without this condition a certificate, or figures, could end on another model.

    Args:
        settings: those that are there if absent.
    """
    now = _opened_again(artifact)
    settings = now.contents.settings() if settings is None else settings

    def check() -> None:
        again = _opened_again(artifact)
        if again.contents.small.get(FINGERPRINTS_FILE) != now.contents.small.get(FINGERPRINTS_FILE):
            raise replaced(artifact.directory)  # rows were added that the new list would lack

    with staged(artifact.directory, artifact_files, check) as staging:
        for name in artifact.contents.weights:
            _link_weights(artifact, name, _place(staging, name))
        _write_small(now, staging, added)
        if card is not None:
            (staging / CARD_FILE).write_text(card, encoding="utf-8")
        if settings is not None and settings["schema_version"] >= LISTS_ALL_FILES:
            write_settings(staging, settings, _known(artifact))
        elif settings is not None:
            (staging / SETTINGS_FILE).write_bytes(now.contents.small[SETTINGS_FILE])
        written = open_staged(staging, artifact.directory)
    artifact.contents.follow(written.contents)
    return written


def _opened_again(artifact: Artifact) -> Artifact:
    now = open_artifact(artifact.directory, verify=False, weights=False)
    artifact.contents.require_same(now.contents)
    return now


def _is_folder_of(artifact: Artifact, directory: Path) -> bool:
    try:
        return os.path.samefile(artifact.directory, directory)
    except OSError:
        return False


def _known(artifact: Artifact) -> dict[str, Recorded]:
    """Returns the known sizes and hashes of verified weights."""
    return {name: file.recorded for name, file in artifact.contents.weights.items() if file.verified}


def _write_small(artifact: Artifact, staging: Path, added: Mapping[str, Fingerprints]) -> None:
    """Writes every file except weights and settings, with further fingerprints."""
    for name, contents in artifact.contents.small.items():
        if name != SETTINGS_FILE:
            _place(staging, name).write_bytes(contents)
    if added:
        write_fingerprints(staging / FINGERPRINTS_FILE, {**artifact.fingerprints(), **added})


def _link_weights(artifact: Artifact, name: str, place: Path) -> None:
    """Links the folder's own weights, or copies them if the file system has no links."""
    try:
        os.link(os.path.realpath(artifact.directory / name), place)
    except OSError:
        place.write_bytes(artifact.contents.weights_now(name))


def _place(staging: Path, name: str) -> Path:
    (staging / name).parent.mkdir(exist_ok=True)
    return staging / name
