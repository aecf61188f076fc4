"""Opening a folder: nothing is used before it was verified."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.fingerprints import Fingerprints, read_fingerprints
from itrex_sweet.artifact.layout import (
    CASCADE,
    CONFIG_FILE,
    EARLY_EXIT,
    FINGERPRINTS_FILE,
    FLOAT32,
    FORMAT,
    INT8,
    SCHEMA_VERSION,
    SETTINGS_FILE,
    read_json,
    sha256,
    weight_files,
)
from itrex_sweet.config import Policy, SweetConfig
from itrex_sweet.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


_UNNAMED_LABEL = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class Artifact:
    """A verified folder, opened for reading. `open_artifact` makes one.

    Args:
        directory: the folder.
        config: contents of `config.json`.
        exits: counts of encoder layers, from 1.
        policy: when a row may leave.
        architecture: `"early_exit"`, or `"cascade"` of independent models.
        shares_pooler: whether every exit reads through the model's own pooler.
        precision: `"float32"`, or `"int8"` where linear layers are quantized.
        quantization: how it was quantized, as recorded by the quantizer; empty in float32.
        provenance: versions, date and training settings, as recorded by the writer.
        calibration: budget, bound and rows that the policy rests on, as recorded by `calibrate`; empty if it was not.
        costs: milliseconds by exit, batch size and length, as measured by `calibrate` on the machine that it names.
        stages: the models of a cascade, one per exit.
    """

    directory: Path
    config: Mapping[str, Any]
    exits: tuple[int, ...]
    policy: Policy
    architecture: str = EARLY_EXIT
    shares_pooler: bool = False
    precision: str = FLOAT32
    quantization: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Artifact, ...] = ()

    @property
    def layers_run(self) -> tuple[int, ...]:
        """Layers a row has cost when it leaves at each exit: the exit itself, or the sum so far in a cascade."""
        return tuple(accumulate(self.exits)) if self.architecture == CASCADE else self.exits

    @property
    def learned_to_exit(self) -> bool:
        """Whether exits know how likely they are right, which the criterion `"learned"` reads."""
        return bool((self.config.get("sweet") or {}).get("learn_to_exit")) and not self.stages

    def checked(self, policy: Policy) -> Policy:
        """The policy, if this artifact can run under it.

        Raises:
            ConfigError: it is for other exits, or reads what these exits did not learn.
        """
        if policy.criterion == "learned" and not self.learned_to_exit:
            raise ConfigError(
                "criterion='learned' needs exits that learned how likely they are right: train with "
                "SweetCallback(learn_to_exit=True) (--learn-to-exit)."
            )
        return policy.checked_for(self.exits)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, by id."""
        by_id = self.config.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}
        return tuple(str(by_id[key]) for key in sorted(by_id, key=int))

    @property
    def given_label_names(self) -> tuple[str, ...] | None:
        """The same, or `None` where they are the numbers that transformers puts for want of names."""
        return None if all(map(_UNNAMED_LABEL.fullmatch, self.label_names)) else self.label_names

    def model_config(self) -> PretrainedConfig:
        """`config.json` as transformers' object."""
        from transformers import AutoConfig

        fields = dict(self.config)
        return AutoConfig.for_model(fields.pop("model_type", ""), **fields)

    def fingerprints(self) -> dict[str, Fingerprints]:
        """The rows it was trained, calibrated and reported on, by role, as far as they were recorded.

        Raises:
            ArtifactError: the file is damaged.
        """
        return read_fingerprints(self.directory / FINGERPRINTS_FILE)

    def weight_files(self) -> list[Path]:
        """Its safetensors files, those of all stages of a cascade."""
        models = self.stages or (self,)
        return [path for model in models for path in weight_files(model.directory, model.precision)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Reads every tensor of the weights file, by its Hugging Face name.

        Raises:
            ArtifactError: the file is not a whole safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        tensors: dict[str, torch.Tensor] = {}
        for path in weight_files(self.directory, self.precision):
            try:
                tensors.update(load_file(path))
            except (SafetensorError, OSError) as error:
                raise ArtifactError(
                    f"{path} cannot be read as safetensors ({error}); copy or write it anew."
                ) from error
        return tensors


def open_artifact(directory: str | os.PathLike, verify: bool = True) -> Artifact:
    """Opens a folder that `write_artifact` wrote, or that a Trainer with `SweetCallback` saved.

    Args:
        directory: the folder.
        verify: compare sizes and SHA-256 hashes with the recorded ones before any use.

    Raises:
        ArtifactError: not a folder, a plain checkpoint without exits, a foreign or newer format, or a file that
            is missing, truncated or corrupt.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ArtifactError(f"{directory} is not a folder.")
    config = read_json(directory / CONFIG_FILE)
    if not (directory / SETTINGS_FILE).is_file():
        return _open_checkpoint(directory, config)
    settings = read_json(directory / SETTINGS_FILE)
    _check_format(directory, settings)
    if verify:
        _verify(directory, settings.get("files", {}))
    try:
        policy = Policy.from_dict(settings["policy"])
        exits = tuple(settings["exits"])
        architecture = settings["architecture"]
        stages = tuple(_open_checkpoint(directory / name, read_json(directory / name / CONFIG_FILE))
                       for name in settings.get("stages", ()))  # fmt: skip
        policy.checked_for(exits)
        return Artifact(
            directory=directory,
            config=config,
            exits=exits,
            policy=policy,
            architecture=architecture,
            shares_pooler=settings.get("shares_pooler", False),
            precision=settings.get("precision", FLOAT32),
            quantization=settings.get("quantization", {}),
            provenance=settings.get("provenance", {}),
            calibration=settings.get("calibration", {}),
            costs=settings.get("costs", {}),
            stages=stages,
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{directory / SETTINGS_FILE} is damaged: {error!r}. Write the artifact anew.") from error


def _open_checkpoint(directory: Path, config: Mapping[str, Any]) -> Artifact:
    """A folder as `Trainer.save_model` leaves it: exits in `config.json`, no policy and no hashes yet."""
    sweet = config.get("sweet")
    if not sweet or not sweet.get("exits"):
        raise ArtifactError(
            f"{directory} is a plain checkpoint: it has no exits. Fine-tune it with "
            "Trainer(..., callbacks=[SweetCallback()]) or `itrex-sweet train --model DIR`, then load the result. "
            "To run it in full, use transformers."
        )
    settings = SweetConfig.from_dict(sweet)
    weight_files(directory)
    return Artifact(
        directory=directory,
        config=config,
        exits=settings.exits,
        policy=Policy.uniform(len(settings.exits)),
        shares_pooler=settings.shares_pooler,
    )


def _check_format(directory: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("format") != FORMAT:
        raise ArtifactError(
            f"{directory / SETTINGS_FILE} was written by something else: format={settings.get('format')!r}."
        )
    version = settings.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise ArtifactError(f"{directory / SETTINGS_FILE} is damaged: schema_version={version!r}.")
    if version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} has schema version {version}; this release reads up to {SCHEMA_VERSION}. Upgrade itrex-sweet."
        )
    if settings.get("precision", FLOAT32) not in (FLOAT32, INT8):
        raise ArtifactError(f"{directory} has an unknown precision {settings.get('precision')!r}.")
    if settings.get("architecture") not in (EARLY_EXIT, CASCADE):
        raise ArtifactError(f"{directory} has an unknown architecture {settings.get('architecture')!r}.")


def _verify(directory: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    for name, recorded in files.items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; copy the whole folder again.")
        size = path.stat().st_size
        if size != recorded["bytes"]:
            raise ArtifactError(f"{path} has {size} bytes, {recorded['bytes']} were written: a truncated copy?")
        try:
            digest = sha256(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error}).") from error
        if digest != recorded["sha256"]:
            raise ArtifactError(
                f"{path} is not the file that was written (its SHA-256 differs): corrupt, or from another artifact. "
                f"If a Trainer saved a model over an artifact here, delete {SETTINGS_FILE}."
            )
