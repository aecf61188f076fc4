"""Opens an artifact: files are read once, verified, and used from memory."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.checking import check_tensors_of
from itrex_sweet.artifact.contents import Contents
from itrex_sweet.artifact.files import read_contents
from itrex_sweet.artifact.fingerprints import Fingerprints, parse_fingerprints
from itrex_sweet.artifact.layout import (
    CASCADE,
    CONFIG_FILE,
    EARLY_EXIT,
    FINGERPRINTS_FILE,
    FLOAT32,
    FORMAT,
    FULL_MANIFEST_SCHEMA,
    INT8,
    SCHEMA_VERSION,
    SETTINGS_FILE,
)
from itrex_sweet.artifact.manifest import check_digest
from itrex_sweet.artifact.model_config import ModelConfig, label_names_of, resolved_config
from itrex_sweet.artifact.settings import EMBEDDINGS
from itrex_sweet.artifact.snapshot import COMMITTED, JSON_LIMIT, Snapshot
from itrex_sweet.artifact.staging import resume
from itrex_sweet.artifact.stored_tensor import StoredTensor
from itrex_sweet.artifact.tensors import TensorFile
from itrex_sweet.artifact.transformers_config import model_config
from itrex_sweet.artifact.validation.config import check_config
from itrex_sweet.artifact.validation.json_text import parse_object
from itrex_sweet.artifact.validation.settings import check_settings, check_stages, check_task, stage_names
from itrex_sweet.config import UNNAMED_MODE, SweetConfig
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import Task, task_of

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Artifact:
    """An opened artifact; `open_artifact` creates it.

    Args:
        directory: the folder.
        config: contents of `config.json`.
        exits: counts of encoder layers, from 1.
        policy: exit policy.
        architecture: `"early_exit"`, or `"cascade"` of independent models.
        shares_pooler: whether all exits use the model's own pooler.
        precision: `"float32"`, or `"int8"` where linear layers are quantized.
        quantization: how it was quantized, as recorded by the quantizer; empty in float32.
        provenance: versions, date and training settings, as recorded by the writer.
        calibration: budget, bound and rows of the calibration, as recorded by `calibrate`; empty without calibration.
        costs: milliseconds by exit, batch size and length, as measured by `calibrate` on the machine that it names.
        stages: the models of a cascade, one per exit.
        contents: contents of its files.
        prefix: prefix of its files there: empty, or the name of a stage's sub-folder with `/`.
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
    contents: Contents = field(kw_only=True, repr=False, compare=False)
    prefix: str = field(default="", kw_only=True, repr=False, compare=False)

    def __fspath__(self) -> str:
        """Returns the folder, so that functions that take one also take the artifact."""
        return os.fspath(self.directory)

    @property
    def layers_run(self) -> tuple[int, ...]:
        """Number of layers that are run for a row that leaves at each exit; in a cascade the sum over the stages."""
        return tuple(accumulate(self.exits)) if self.architecture == CASCADE else self.exits

    @property
    def learned_to_exit(self) -> bool:
        """`True` if the exits were trained to predict their correctness, for the criterion `"learned"`."""
        return bool((self.config.get("sweet") or {}).get("learn_to_exit")) and not self.stages

    @property
    def task(self) -> Task:
        """The task of the model, which defines the meaning of the logits."""
        return task_of(self.config)

    @property
    def mode(self) -> str | None:
        """Training mode of the exits, one of `itrex_sweet.config.MODES`; `None` for a cascade."""
        return None if self.stages else (self.config.get("sweet") or {}).get("mode", UNNAMED_MODE)

    @property
    def embeddings_precision(self) -> str:
        """Precision of the word embeddings: `"int8"`, with one scale per token, or `"float32"`."""
        return self.quantization.get(EMBEDDINGS, FLOAT32)

    @property
    def private_exits(self) -> tuple[int, ...]:
        """Exits with a private layer: all but the last, or none."""
        has_private = self.mode is not None and SweetConfig(mode=self.mode).has_private_layers
        return self.exits[:-1] if has_private else ()

    def checked(self, policy: Policy) -> Policy:
        """Returns the policy for the artifact's task, after checking that the artifact can run under it.

        Label thresholds and a tolerance that it leaves open are those of the stored policy.

        Raises:
            ConfigError: the policy is for other exits or another task, or needs correctness layers that the exits lack.
        """
        if policy.criterion == "learned" and not self.learned_to_exit:
            raise ConfigError(
                "criterion='learned' needs exits that predict their correctness: train with "
                "SweetCallback(learn_to_exit=True) (--learn-to-exit)."
            )
        policy = policy.checked_for(self.exits).for_task(self.task.name, len(self.label_names))
        kept = {name: getattr(self.policy, name) for name in ("label_thresholds", "tolerance")}
        kept = {name: value for name, value in kept.items() if value is not None and getattr(policy, name) is None}
        return dataclasses.replace(policy, **kept) if kept else policy

    @functools.cached_property
    def label_names(self) -> tuple[str, ...]:
        """Label names, by id."""
        return label_names_of(self.config)

    def resolved_config(self) -> ModelConfig:
        """Returns the fields of `config.json` that define the model, with the family's defaults for absent ones.

        Raises:
            ArtifactError: a field is missing, of the wrong type, out of range, or contradicts another one.
        """
        return resolved_config(self.config, self.exits, self.directory / CONFIG_FILE)

    def model_config(self) -> PretrainedConfig:
        """Returns the config object of transformers, with its defaults for absent fields.

        Raises:
            ArtifactError: a field is missing, of the wrong type, out of range, or contradicts another one.
        """
        return model_config(self.config, self.exits, self.directory / CONFIG_FILE)

    def fingerprints(self) -> dict[str, Fingerprints]:
        """Returns the recorded fingerprints of the training, calibration and evaluation rows, by role.

        Raises:
            ArtifactError: the file is damaged.
        """
        if FINGERPRINTS_FILE not in self.files:
            return {}
        return parse_fingerprints(self.read_file(FINGERPRINTS_FILE), self.directory / FINGERPRINTS_FILE)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the opened files, relative to `directory`, without those of a cascade's stages."""
        names = (*self.contents.small, *self.contents.weights)
        return tuple(sorted(name[len(self.prefix) :] for name in names if name.rpartition("/")[0] == self.prefix[:-1]))

    def read_file(self, name: str) -> bytes:
        """Returns the contents of a file that was verified when the artifact was opened.

        Raises:
            ArtifactError: there is no such file, or a weights file has changed since it was opened.
        """
        return self.contents.read(self.prefix + name)

    def weight_files(self) -> dict[str, int]:
        """Returns the sizes in bytes of its safetensors files by name, with those of a cascade's stages."""
        return {name: file.identity.bytes for name, file in self.contents.weights.items()}

    def stored_tensors(self) -> dict[str, StoredTensor]:
        """Reads and checks every tensor of the weights; returns them by Hugging Face name.

        Raises:
            ArtifactError: a file is not valid safetensors, or has changed since it was opened; a tensor is missing,
                has another shape or type than the config needs, or holds numbers that are not finite or out of range.
        """
        tensors: dict[str, StoredTensor] = {}
        for name in self.contents.weights:
            if name.rpartition("/")[0] != self.prefix[:-1]:
                continue
            path = self.contents.directory / name
            found = TensorFile(self.contents.pop_weights(name), path).tensors()
            for duplicate in found.keys() & tensors.keys():
                raise ArtifactError(
                    f"{path} and {tensors[duplicate].file} both hold {duplicate!r}; write the artifact again."
                )
            tensors.update(found)
        check_tensors_of(self, tensors, of_its_files=True)
        return tensors

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns `stored_tensors` as torch tensors, with the same errors."""
        return {name: tensor.as_torch() for name, tensor in self.stored_tensors().items()}


_ATTEMPTS = 100
_WAIT = 0.002  # seconds before the second attempt, and twice, three times ... that before the others, up to 0.1


def open_artifact(directory: str | os.PathLike, verify: bool = True, *, weights: bool = True) -> Artifact:
    """Opens a folder written by `write_artifact`, or saved by a Trainer with `SweetCallback`.

    The files are read into memory once and verified there; later changes in the folder have no effect. If it is
    replaced in the meantime, either the old artifact or the new one is opened.

    Args:
        directory: the folder.
        verify: compare sizes and SHA-256 hashes with the recorded ones before any use.
        weights: read the weights now; otherwise they are read and verified on first use.

    Raises:
        ArtifactError: not a folder, a plain checkpoint without exits, a foreign or newer format, or a file that
            is missing, truncated, corrupt, or not listed.
    """
    directory = Path(directory)
    if os.path.lexists(directory / COMMITTED):
        resume(directory)
    for attempt in range(1, _ATTEMPTS + 1):
        with Snapshot(directory) as folder:
            try:
                artifact = _open(folder, verify, weights)
            except ArtifactError:
                if folder.is_current():
                    raise
            else:
                if (artifact.contents.is_verified and weights) or folder.is_current():
                    return artifact
        time.sleep(min(_WAIT * attempt, 0.1))
    raise ArtifactError(
        f"{directory} changed whenever it was opened, {_ATTEMPTS} times; open it when no process writes it."
    )


def open_staged(staging: Path, directory: Path) -> Artifact:
    """Opens and verifies a folder that will replace `directory`, with that name in messages."""
    with Snapshot(staging, called=directory) as folder:
        return _open(folder, verify=True, weights=False)


def _open(folder: Snapshot, verify: bool, weights: bool) -> Artifact:
    directory = folder.directory
    if not folder.has(CONFIG_FILE):
        if folder.has("adapter_config.json"):
            raise ArtifactError(
                f"{directory} holds a PEFT adapter, not a model: put it around its model, "
                "peft.PeftModel.from_pretrained(plain, FOLDER), then attach(model, config, heads_from=FOLDER) and "
                "save_artifact(model, OTHER), which merges it."
            )
        raise ArtifactError(f"{directory} has no {CONFIG_FILE}: it is not a model folder.")
    if not folder.has(SETTINGS_FILE):
        contents = read_contents(folder, None, FLOAT32, (), verify, weights)
        return _checkpoint(contents, "")
    path = directory / SETTINGS_FILE
    raw = folder.read(SETTINGS_FILE, JSON_LIMIT)
    settings = parse_object(raw, path)
    _check_format(directory, settings)
    precision, stages = settings.get("precision", FLOAT32), stage_names(settings, path)
    contents = read_contents(folder, settings, precision, stages, verify, weights)
    contents.small[SETTINGS_FILE] = raw
    config = contents.config()
    check_config(config, directory / CONFIG_FILE)
    check_settings(settings, config, path)
    artifact = Artifact(
        directory=directory,
        config=config,
        exits=tuple(settings["exits"]),
        policy=Policy.from_dict(settings["policy"]).for_task(task_of(config).name, len(label_names_of(config))),
        architecture=settings["architecture"],
        shares_pooler=settings.get("shares_pooler", False),
        precision=precision,
        quantization=settings.get("quantization", {}),
        provenance=settings.get("provenance", {}),
        calibration=settings.get("calibration", {}),
        costs=settings.get("costs", {}),
        stages=tuple(_checkpoint(contents, f"{name}/") for name in stages),
        contents=contents,
    )
    if stages:
        check_stages(
            config, artifact.exits, [(stage.directory / CONFIG_FILE, stage.config) for stage in artifact.stages]
        )
    if verify and settings["schema_version"] >= FULL_MANIFEST_SCHEMA:
        check_digest(settings, path)
    return artifact


def _checkpoint(contents: Contents, prefix: str) -> Artifact:
    """Opens a folder saved by `Trainer.save_model`: exits in `config.json`, without policy and hashes."""
    directory = contents.directory / prefix if prefix else contents.directory
    config = contents.config(prefix)
    sweet = config.get("sweet")
    if not sweet or (isinstance(sweet, dict) and not sweet.get("exits")):
        raise ArtifactError(
            f"{directory} is a plain checkpoint: it has no exits. If it is fine-tuned, add them with `itrex-sweet "
            "accelerate DIR --traffic FILE`; else fine-tune it with `itrex-sweet train --model DIR`, or "
            "Trainer(..., callbacks=[SweetCallback()])."
        )
    check_config(config, directory / CONFIG_FILE)
    settings = SweetConfig.from_dict(sweet)
    check_task(config, settings.exits, settings.learn_to_exit, directory / CONFIG_FILE)
    return Artifact(
        directory=directory,
        config=config,
        exits=settings.exits,
        policy=settings.default_policy(task_of(config)),
        shares_pooler=settings.shares_pooler,
        contents=contents,
        prefix=prefix,
    )


def _check_format(directory: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("format") != FORMAT:
        raise ArtifactError(
            f"{directory / SETTINGS_FILE} was written by something else: format={settings.get('format')!r}."
        )
    version = settings.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtifactError(f"{directory / SETTINGS_FILE} is damaged: schema_version={version!r}.")
    if version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} has schema version {version}; this release reads up to {SCHEMA_VERSION}. Upgrade itrex-sweet."
        )
    if settings.get("precision", FLOAT32) not in (FLOAT32, INT8):
        raise ArtifactError(f"{directory} has an unknown precision {settings.get('precision')!r}.")
    if settings.get("architecture") not in (EARLY_EXIT, CASCADE):
        raise ArtifactError(f"{directory} has an unknown architecture {settings.get('architecture')!r}.")
