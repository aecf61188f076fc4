"""Writes artifacts and cascades."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.files import artifact_files, tokenizer_files
from itrex_sweet.artifact.fingerprints import Fingerprints, write_fingerprints
from itrex_sweet.artifact.finite import check_finite
from itrex_sweet.artifact.layout import (
    CARD_FILE,
    CASCADE,
    CONFIG_FILE,
    EARLY_EXIT,
    FINGERPRINTS_FILE,
    FLOAT32,
    INT8,
    INT8_WEIGHTS_FILE,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    is_model_file,
)
from itrex_sweet.artifact.reading import Artifact, open_staged
from itrex_sweet.artifact.settings import EMBEDDINGS, settings_of, write_settings
from itrex_sweet.artifact.staging import staged
from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, SweetError
from itrex_sweet.families import family_of
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import task_of

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
    calibration: Mapping[str, Any] | None = None,
    costs: Mapping[str, Any] | None = None,
    tokenizer_of: Artifact | None = None,
) -> Artifact:
    """Writes an early-exit artifact atomically: files are written to a staging folder, which then replaces the target.

    Args:
        directory: created if missing; files of an earlier artifact are replaced, others are kept.
        config: a `PretrainedConfig` whose `sweet` holds a resolved `SweetConfig` as a dict.
        tensors: float tensors by Hugging Face name, exit heads included; with `quantization`, integers too.
        policy: exit policy; default: the threshold that training recorded, for all exits.
        tokenizer: tokenizer to save; default: the one that is already in the folder, if any.
        provenance: facts to record (training settings, metrics); versions and date are added.
        quantization: record of the quantization; makes it an INT8 artifact. The precision of the word embeddings is
            added.
        fingerprints: fingerprints of the training, calibration and evaluation rows, by role.
        calibration: calibration record of the policy.
        costs: record of the measured times.
        tokenizer_of: an opened artifact whose tokenizer files are copied if no tokenizer is given.

    Raises:
        ArtifactError: the folder cannot be written, or a weight is not finite; the folder is unchanged.
    """
    directory = Path(directory)
    sweet = SweetConfig.from_dict(config.sweet)
    precision = FLOAT32 if quantization is None else INT8
    if quantization is not None:
        quantization = {**quantization, EMBEDDINGS: _precision_of_embeddings(config, tensors)}
    records = {"quantization": quantization, "calibration": calibration, "costs": costs}
    facts = {name: dict(record) for name, record in records.items() if record is not None}
    policy = policy or sweet.default_policy(task_of(config))
    settings = settings_of(
        sweet.exits, policy, provenance, precision, EARLY_EXIT, shares_pooler=sweet.shares_pooler, **facts
    )
    with staged(directory, artifact_files) as staging:
        _write_model(staging, config, tensors, precision)
        if tokenizer is None and tokenizer_of is not None:
            for name in tokenizer_of.files:
                if not is_model_file(name) and name not in (SETTINGS_FILE, FINGERPRINTS_FILE, CARD_FILE):
                    (staging / name).write_bytes(tokenizer_of.read_file(name))
        else:
            _write_tokenizer(staging, tokenizer, directory)
        if fingerprints:
            write_fingerprints(staging / FINGERPRINTS_FILE, fingerprints)
        write_settings(staging, settings)
        artifact = open_staged(staging, directory)
    return artifact


def _precision_of_embeddings(config: Any, tensors: Mapping[str, torch.Tensor]) -> str:
    table = tensors.get(f"{family_of(config).word_embeddings}.weight")
    return INT8 if table is not None and str(table.dtype) == "torch.int8" else FLOAT32


def write_cascade(
    directory: str | os.PathLike,
    *,
    stages: Sequence[tuple[Any, Mapping[str, torch.Tensor]]],
    policy: Policy | None = None,
    tokenizer: Any = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Writes independent models, shallow to deep, as one cascade, otherwise as `write_artifact`.

    Args:
        stages: config and tensors of each model; `config.num_hidden_layers` is its exit.
    """
    directory = Path(directory)
    exits = tuple(config.num_hidden_layers for config, _ in stages)
    if list(exits) != sorted(set(exits)) or not exits:
        raise ConfigError(f"a cascade of depths {exits}: depths must increase.")
    names = [f"exit_{exit_}" for exit_ in exits]
    policy = policy or Policy.uniform(len(exits), task=task_of(stages[-1][0]).name)
    settings = settings_of(exits, policy, provenance, FLOAT32, CASCADE, stages=names)
    with staged(directory, artifact_files) as staging:
        for name, (config, tensors) in zip(names, stages, strict=True):
            config = copy.deepcopy(config)  # the caller's stays as it is
            config.sweet = SweetConfig(exits=(config.num_hidden_layers,), mode="sweet").to_dict()
            (staging / name).mkdir()
            _write_model(staging / name, config, tensors, FLOAT32)
        shutil.copyfile(staging / names[-1] / CONFIG_FILE, staging / CONFIG_FILE)
        _write_tokenizer(staging, tokenizer, directory)
        write_settings(staging, settings)
        artifact = open_staged(staging, directory)
    return artifact


_WEIGHTS = {FLOAT32: WEIGHTS_FILE, INT8: INT8_WEIGHTS_FILE}


def _write_model(directory: Path, config: Any, tensors: Mapping[str, torch.Tensor], precision: str) -> None:
    from safetensors.torch import save_file

    check_finite(tensors)
    save_file(dict(tensors), directory / _WEIGHTS[precision], metadata={"format": "pt"})
    with _saving("config"):
        config.save_pretrained(directory)


def _write_tokenizer(staging: Path, tokenizer: Any, directory: Path) -> None:
    """Saves a tokenizer, or copies the one in the folder if none is given."""
    if tokenizer is not None:
        with _saving("tokenizer"):
            tokenizer.save_pretrained(staging)
    elif directory.is_dir():
        for name, contents in tokenizer_files(directory).items():
            (staging / name).write_bytes(contents)


@contextmanager
def _saving(part: str) -> Iterator[None]:
    """Converts any exception to OSError: the tokenizers library raises a plain `Exception` if the disk is full."""
    try:
        yield
    except SweetError:
        raise
    except Exception as error:
        raise OSError(f"the {part} could not be saved: {error}") from error
