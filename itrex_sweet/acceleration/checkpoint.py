"""Loads a fine-tuned classifier without exits, and checks that exits can be added to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.layout import CONFIG_FILE, SETTINGS_FILE, sha256
from itrex_sweet.artifact.model_config import resolved_config
from itrex_sweet.artifact.snapshot import read_json
from itrex_sweet.classifier.options import refuse_adapter
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.evaluation.plain_model import load_plain_model
from itrex_sweet.evaluation.reference import open_reference
from itrex_sweet.hub import fetch
from itrex_sweet.tasks import Task, task_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CONFIG_AND_TOKENIZER = ("*.json", "vocab.txt", "merges.txt", "*.model")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a classifier without exits, of a supported family.

    Args:
        folder: folder of the model.
        name: name on the hub, or the last part of a local path.
        depth: number of encoder layers.
        task: of its head.
    """

    folder: Path
    name: str
    depth: int
    task: Task

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Loads the model in float32, and its tokenizer.

        Raises:
            ArtifactError: it cannot be loaded, or is not a fine-tuned classifier.
            ConfigError: it is not a classification model, or the tokenizer does not fit.
        """
        from itrex_sweet.training.validation import check_tokenizer

        model, tokenizer = load_plain_model(self.folder)
        check_tokenizer(tokenizer, model)
        return model, tokenizer

    def identity(self) -> dict[str, str]:
        """Returns hashes of the files that its predictions depend on."""
        paths = [path for pattern in _CONFIG_AND_TOKENIZER for path in sorted(self.folder.glob(pattern))]
        files = {path.name: sha256(path) for path in paths if path.is_file()}
        return {"weights": open_reference(self.folder).sha256, **files}


def open_checkpoint(model_id: str | os.PathLike) -> Checkpoint:
    """Finds a classifier and checks its config. Does not load the weights.

    Args:
        model_id: a folder, or a name on the hub.

    Raises:
        ArtifactError: the folder is no model folder, or holds an adapter; or a field of the config is missing, of the
            wrong type, out of range, or contradicts another one.
        ConfigError: it has exits already.
        UnsupportedModelError: a family, head or configuration that exits do not support.
    """
    folder = fetch(model_id)
    refuse_adapter(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise ArtifactError(f"{folder} has no {CONFIG_FILE}: pass a folder that save_pretrained wrote.")
    config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    if (folder / SETTINGS_FILE).is_file() or config.get("sweet"):
        sweet = config.get("sweet")
        exits = sweet.get("exits") if isinstance(sweet, dict) else None
        named = ": " + ", ".join(map(str, exits)) if exits and isinstance(exits, list) else ""
        raise ConfigError(
            f"{model_id} has exits already{named}. Pass the checkpoint that it was created from, or continue with "
            "`itrex-sweet quantize` and `calibrate`."
        )
    read = resolved_config(config, None, folder / CONFIG_FILE)
    name = folder.resolve().name if Path(model_id).is_dir() else str(model_id)
    return Checkpoint(folder, name, read.num_hidden_layers, task_of(read))


def require_other_folder(checkpoint: Checkpoint, output: Path) -> None:
    """Checks that an artifact does not replace the checkpoint.

    Raises:
        ConfigError: the folders are the same.
    """
    if output.resolve() == checkpoint.folder.resolve():
        raise ConfigError(f"{output} holds the model itself, which stays as it is: pass another output folder.")
