"""Writing artifacts, cascades, copies and model cards."""

from __future__ import annotations

import copy
import datetime
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.fingerprints import CALIBRATION, REPORTING, Fingerprints, write_fingerprints
from itrex_sweet.artifact.layout import (
    CARD_FILE,
    CASCADE,
    CONFIG_FILE,
    EARLY_EXIT,
    FINGERPRINTS_FILE,
    FLOAT32,
    FORMAT,
    INT8,
    INT8_WEIGHTS_FILE,
    SCHEMA_VERSION,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    sha256,
)
from itrex_sweet.artifact.manifest import digest_of
from itrex_sweet.artifact.reading import Artifact, open_artifact
from itrex_sweet.artifact.staging import staged
from itrex_sweet.config import Policy, SweetConfig
from itrex_sweet.errors import ConfigError
from itrex_sweet.version import __version__

if TYPE_CHECKING:
    import torch


def write_artifact(
    directory: str | os.PathLike,
    *,
    config: Any,
    tensors: Mapping[str, torch.Tensor],
    policy: Policy | None = None,
    tokenizer: Any = None,
    provenance: Mapping[str, Any] | None = None,
    quantization: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, Fingerprints] | None = None,
) -> Artifact:
    """Writes an early-exit artifact. The folder is changed only after everything was written beside it.

    Args:
        directory: made if missing; files of an earlier artifact are replaced, others are left alone.
        config: a `PretrainedConfig` whose `sweet` holds a resolved `SweetConfig` as a dict.
        tensors: float tensors by Hugging Face name, exit heads included; with `quantization`, integers too.
        policy: when a row may leave; without one, one default threshold for all exits.
        tokenizer: saved along, if given.
        provenance: facts to record (training settings, metrics); versions and date are added.
        quantization: how the tensors were quantized; makes it an INT8 artifact.
        fingerprints: rows it was trained, calibrated and reported on, by role.

    Raises:
        ArtifactError: the folder cannot be written; what was there before is untouched.
    """
    sweet = SweetConfig.from_dict(config.sweet)
    precision = FLOAT32 if quantization is None else INT8
    facts = {} if quantization is None else {"quantization": dict(quantization)}
    settings = _settings(
        sweet.exits, policy, provenance, precision, EARLY_EXIT, shares_pooler=sweet.shares_pooler, **facts
    )
    with staged(Path(directory), _REPLACED) as staging:
        _write_model(staging, config, tensors, precision)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        if fingerprints:
            write_fingerprints(staging / FINGERPRINTS_FILE, fingerprints)
        _write_settings(staging, settings)
    return open_artifact(directory, verify=False)


def write_cascade(
    directory: str | os.PathLike,
    *,
    stages: Sequence[tuple[Any, Mapping[str, torch.Tensor]]],
    policy: Policy | None = None,
    tokenizer: Any = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Writes independent models, shallow to deep, as one cascade; as `write_artifact` otherwise.

    Args:
        stages: config and tensors of each model; `config.num_hidden_layers` is its exit.
    """
    exits = tuple(config.num_hidden_layers for config, _ in stages)
    if list(exits) != sorted(set(exits)) or not exits:
        raise ConfigError(f"a cascade of depths {exits}: stages must deepen strictly.")
    names = [f"exit_{exit_}" for exit_ in exits]
    settings = _settings(exits, policy, provenance, FLOAT32, CASCADE, stages=names)
    with staged(Path(directory), _REPLACED) as staging:
        for name, (config, tensors) in zip(names, stages, strict=True):
            config = copy.deepcopy(config)  # the caller's stays as it is
            config.sweet = SweetConfig(exits=(config.num_hidden_layers,)).to_dict()
            (staging / name).mkdir()
            _write_model(staging / name, config, tensors, FLOAT32)
        shutil.copyfile(staging / names[-1] / CONFIG_FILE, staging / CONFIG_FILE)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        _write_settings(staging, settings)
    return open_artifact(directory, verify=False)


def copy_artifact(
    artifact: Artifact,
    directory: str | os.PathLike,
    policy: Policy | None = None,
    calibration: Mapping[str, Any] | None = None,
    calibrated_on: Fingerprints | None = None,
    costs: Mapping[str, Any] | None = None,
) -> Artifact:
    """Copies an artifact, tokenizer and card included, with another policy if one is given; onto itself, too.

    What was recorded of a calibration stays with the policy it was made for.

    Args:
        policy: the artifact's own if absent.
        calibration: what the policy rests on, to record.
        calibrated_on: the rows of that.
        costs: what was measured of time, to record; the artifact's own if absent.

    Raises:
        ConfigError: a policy for other exits.
        ArtifactError: the target cannot be written; what was there before is untouched.
    """
    policy = artifact.checked(policy or artifact.policy)
    if calibration is None and policy == artifact.policy:
        calibration = artifact.calibration
    costs = costs or artifact.costs
    settings = _settings(
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
    with staged(Path(directory), _REPLACED) as staging:
        for name in _files_of(artifact):
            target = staging / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(artifact.contents.read(name))
        if calibrated_on is not None:
            fingerprints = {**artifact.fingerprints(), CALIBRATION: calibrated_on}
            write_fingerprints(staging / FINGERPRINTS_FILE, fingerprints)
        _write_settings(staging, settings)
    return open_artifact(directory, verify=False)


def write_card(artifact: Artifact, card: str, reported_on: Fingerprints | None = None) -> None:
    """Writes the model card beside the weights.

    Args:
        reported_on: the rows whose figures the card holds; recorded, so that they are not calibrated on later.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with staged(artifact.directory) as staging:
        (staging / CARD_FILE).write_text(card, encoding="utf-8")
        if reported_on is not None:
            write_fingerprints(staging / FINGERPRINTS_FILE, {**artifact.fingerprints(), REPORTING: reported_on})


_WEIGHTS = {FLOAT32: WEIGHTS_FILE, INT8: INT8_WEIGHTS_FILE}
# Of an earlier artifact in the folder, what a new one without such a file must not inherit.
_REPLACED = (WEIGHTS_FILE, WEIGHTS_INDEX_FILE, INT8_WEIGHTS_FILE, FINGERPRINTS_FILE)


def _files_of(artifact: Artifact) -> list[str]:
    """Every file of an artifact but its settings, which are written anew."""
    return sorted({*artifact.contents.small, *artifact.contents.weights})


def _settings(
    exits: Sequence[int],
    policy: Policy | None,
    provenance: Mapping[str, Any] | None,
    precision: str,
    architecture: str,
    **facts: Any,
) -> dict[str, Any]:
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "architecture": architecture,
        "exits": list(exits),
        "precision": precision,
        "policy": (policy or Policy.uniform(len(exits))).to_dict(),
        "provenance": {"created": created, "versions": library_versions(), **(provenance or {})},
        **facts,
    }


def _write_model(directory: Path, config: Any, tensors: Mapping[str, torch.Tensor], precision: str) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), directory / _WEIGHTS[precision], metadata={"format": "pt"})
    config.save_pretrained(directory)


def _write_settings(staging: Path, settings: dict[str, Any]) -> None:
    paths = sorted(path for path in staging.rglob("*") if path.is_file() and path.name != CARD_FILE)
    settings["files"] = {
        path.relative_to(staging).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in paths
    }
    settings = json.loads(json.dumps(settings))
    settings["digest"] = digest_of(settings)
    (staging / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Versions of what decides the numbers, and of the interpreter."""
    versions = {"python": platform.python_version(), "itrex-sweet": __version__}
    for package in ("torch", "transformers", "numpy", "safetensors"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
