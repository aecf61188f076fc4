"""The seam between training and running: the on-disk format, written whole and verified when read.

Layout of a folder::

    config.json         the Hugging Face config, with the training settings under `sweet`
    sweet_config.json   schema version, exits, policy, precision, provenance, sizes and hashes
    model.safetensors   the model and its exit heads, float32
    tokenizer files     as the tokenizer saves them
    README.md           the model card

A cascade (the Multi-Model baseline) has the same two JSON files, and one sub-folder per stage that holds that
stage's `config.json` and `model.safetensors`. No pickle is read or written.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.config import Policy, SweetConfig
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.version import __version__

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

FORMAT = "itrex-sweet"
SCHEMA_VERSION = 1
EARLY_EXIT, CASCADE = "early_exit", "cascade"

SETTINGS_FILE = "sweet_config.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
CARD_FILE = "README.md"


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
        precision: of the weights.
        provenance: versions, date and training settings, as recorded by the writer.
        stages: the models of a cascade, one per exit.
    """

    directory: Path
    config: Mapping[str, Any]
    exits: tuple[int, ...]
    policy: Policy
    architecture: str = EARLY_EXIT
    shares_pooler: bool = False
    precision: str = "float32"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[Artifact, ...] = ()

    @property
    def layers_run(self) -> tuple[int, ...]:
        """Layers a row has cost when it leaves at each exit: the exit itself, or the sum so far in a cascade."""
        return tuple(accumulate(self.exits)) if self.architecture == CASCADE else self.exits

    def tensors(self) -> dict[str, torch.Tensor]:
        """Reads every tensor of the weights file, by its Hugging Face name.

        Raises:
            ArtifactError: the file is not a whole safetensors file.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        tensors: dict[str, torch.Tensor] = {}
        for path in _weight_files(self.directory):
            try:
                tensors.update(load_file(path))
            except (SafetensorError, OSError) as error:
                raise ArtifactError(
                    f"{path} cannot be read as safetensors ({error}); copy or write it anew."
                ) from error
        return tensors


# ---------------------------------------------------------------------------------------------------- reading


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
    config = _read_json(directory / CONFIG_FILE)
    if not (directory / SETTINGS_FILE).is_file():
        return _open_checkpoint(directory, config)
    settings = _read_json(directory / SETTINGS_FILE)
    _check_format(directory, settings)
    if verify:
        _verify(directory, settings.get("files", {}))
    try:
        policy = Policy.from_dict(settings["policy"])
        exits = tuple(settings["exits"])
        architecture = settings["architecture"]
        stages = tuple(_open_checkpoint(directory / name, _read_json(directory / name / CONFIG_FILE))
                       for name in settings.get("stages", ()))  # fmt: skip
        if len(policy.temperatures) != len(exits):
            raise ConfigError(f"{len(exits)} exits, but a policy for {len(policy.temperatures)}.")
        return Artifact(
            directory=directory,
            config=config,
            exits=exits,
            policy=policy,
            architecture=architecture,
            shares_pooler=settings.get("shares_pooler", False),
            precision=settings.get("precision", "float32"),
            provenance=settings.get("provenance", {}),
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
    _weight_files(directory)
    return Artifact(
        directory=directory,
        config=config,
        exits=settings.exits,
        policy=Policy.uniform(len(settings.exits)),
        shares_pooler=settings.shares_pooler,
    )


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS_FILE).is_file():
        return [directory / WEIGHTS_FILE]
    if (directory / WEIGHTS_INDEX_FILE).is_file():
        shards = sorted(set(_read_json(directory / WEIGHTS_INDEX_FILE).get("weight_map", {}).values()))
        return [directory / shard for shard in shards]
    if any(directory.glob("adapter_model.*")):
        raise ArtifactError(
            f"{directory} holds an adapter, not a model: merge it and write the artifact with "
            "itrex_sweet.save_artifact(model, directory, tokenizer)."
        )
    raise ArtifactError(f"{directory} has no {WEIGHTS_FILE}; only safetensors weights are read.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.parent} has no {path.name}: it is not a model folder.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); the folder is damaged.") from error
    if not isinstance(contents, dict):
        raise ArtifactError(f"{path} holds {type(contents).__name__}, not an object; the folder is damaged.")
    return contents


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
        if _sha256(path) != recorded["sha256"]:
            raise ArtifactError(
                f"{path} is not the file that was written (its SHA-256 differs): corrupt, or from another artifact. "
                f"If a Trainer saved a model over an artifact here, delete {SETTINGS_FILE}."
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------- writing


def write_artifact(
    directory: str | os.PathLike,
    *,
    config: Any,
    tensors: Mapping[str, torch.Tensor],
    policy: Policy | None = None,
    tokenizer: Any = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artifact:
    """Writes an early-exit artifact. The folder is changed only after everything was written beside it.

    Args:
        directory: made if missing; files of an earlier artifact are replaced, others are left alone.
        config: a `PretrainedConfig` whose `sweet` holds a resolved `SweetConfig` as a dict.
        tensors: float tensors by Hugging Face name, exit heads included.
        policy: when a row may leave; without one, one default threshold for all exits.
        tokenizer: saved along, if given.
        provenance: facts to record (training settings, metrics); versions and date are added.

    Raises:
        ArtifactError: the folder cannot be written; what was there before is untouched.
    """
    sweet = SweetConfig.from_dict(config.sweet)
    settings = _settings(sweet.exits, policy, provenance, architecture=EARLY_EXIT, shares_pooler=sweet.shares_pooler)
    with _staged(Path(directory)) as staging:
        _write_model(staging, config, tensors)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
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
    settings = _settings(exits, policy, provenance, architecture=CASCADE, stages=names)
    with _staged(Path(directory)) as staging:
        for name, (config, tensors) in zip(names, stages, strict=True):
            config.sweet = SweetConfig(exits=(config.num_hidden_layers,)).to_dict()
            (staging / name).mkdir()
            _write_model(staging / name, config, tensors)
        shutil.copyfile(staging / names[-1] / CONFIG_FILE, staging / CONFIG_FILE)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        _write_settings(staging, settings)
    return open_artifact(directory, verify=False)


def copy_artifact(artifact: Artifact, directory: str | os.PathLike, policy: Policy | None = None) -> Artifact:
    """Copies an artifact, tokenizer and card included, with another policy if one is given.

    Raises:
        ArtifactError: the target cannot be written; what was there before is untouched.
    """
    settings = _settings(
        artifact.exits,
        policy or artifact.policy,
        artifact.provenance,
        architecture=artifact.architecture,
        shares_pooler=artifact.shares_pooler,
        stages=[stage.directory.name for stage in artifact.stages],
    )
    with _staged(Path(directory)) as staging:
        for path in _files_of(artifact):
            target = staging / path.relative_to(artifact.directory)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
        _write_settings(staging, settings)
    return open_artifact(directory, verify=False)


def write_card(artifact: Artifact, card: str) -> None:
    """Writes the model card beside the weights.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with _staged(artifact.directory) as staging:
        (staging / CARD_FILE).write_text(card, encoding="utf-8")


def library_versions() -> dict[str, str]:
    """Versions of what decides the numbers, and of the interpreter."""
    versions = {"python": platform.python_version(), "itrex-sweet": __version__}
    for package in ("torch", "transformers", "numpy", "safetensors"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model")


def _files_of(artifact: Artifact) -> list[Path]:
    """Every file of an artifact but its settings, which are written anew."""
    directory = artifact.directory
    files = {directory / CONFIG_FILE, directory / CARD_FILE}
    files.update(path for pattern in _TOKENIZER_FILES for path in directory.glob(pattern))
    for model in artifact.stages or (artifact,):
        files.add(model.directory / CONFIG_FILE)
        files.update(_weight_files(model.directory))
        files.add(model.directory / WEIGHTS_INDEX_FILE)
    return sorted(path for path in files if path.is_file())


def _settings(
    exits: Sequence[int], policy: Policy | None, provenance: Mapping[str, Any] | None, **facts: Any
) -> dict[str, Any]:
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "exits": list(exits),
        "precision": "float32",
        "policy": (policy or Policy.uniform(len(exits))).to_dict(),
        "provenance": {"created": created, "versions": library_versions(), **(provenance or {})},
        **facts,
    }


def _write_model(directory: Path, config: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config.save_pretrained(directory)


def _write_settings(staging: Path, settings: dict[str, Any]) -> None:
    weights = sorted(staging.rglob("*.safetensors"))
    settings["files"] = {
        path.relative_to(staging).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in weights
    }
    (staging / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _staged(directory: Path) -> Iterator[Path]:
    """A hidden folder inside `directory` whose files move into it, settings last, if the block succeeds.

    A crash between two moves leaves hashes that do not match, which `open_artifact` reports.
    """
    from safetensors import SafetensorError

    staging: Path | None = None
    existed = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=directory))
        yield staging
        _move_in(staging, directory)
    except (OSError, SafetensorError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"cannot write {directory} ({error}); what it held before is untouched.") from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
            if not existed and not any(directory.iterdir()):
                directory.rmdir()


def _move_in(staging: Path, directory: Path) -> None:
    by_order: Callable[[Path], tuple[bool, Path]] = lambda path: (path.name == SETTINGS_FILE, path)  # noqa: E731
    for path in sorted((path for path in staging.rglob("*") if path.is_file()), key=by_order):
        target = directory / path.relative_to(staging)
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)
