"""A plain fine-tuned classifier, as exits can be added to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from itrex_sweet.artifact.layout import CONFIG_FILE, SETTINGS_FILE, sha256
from itrex_sweet.artifact.snapshot import read_json
from itrex_sweet.classifier.options import refuse_adapter
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.evaluation.plain_model import load_plain_model
from itrex_sweet.evaluation.reference import open_reference
from itrex_sweet.families import family_of
from itrex_sweet.hub import fetch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was checked to hold a plain classifier of a family that can carry exits.

    Args:
        folder: of the model.
        name: as it was asked for, of a local path the last part.
        depth: encoder layers.
    """

    folder: Path
    name: str
    depth: int

    def load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The model in float32, and its tokenizer.

        Raises:
            ArtifactError: it cannot be loaded, or is no fine-tuned classifier.
            ConfigError: it does not classify, or the tokenizer does not fit the model.
        """
        from itrex_sweet.training.examples import refuse_unfit_tokenizer

        model, tokenizer = load_plain_model(self.folder)
        refuse_unfit_tokenizer(tokenizer, model)
        return model, tokenizer

    def identity(self) -> dict[str, str]:
        """Hashes of what decides its answers."""
        names = [CONFIG_FILE, "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json"]
        small = {name: sha256(self.folder / name) for name in names if (self.folder / name).is_file()}
        return {"weights": open_reference(self.folder).sha256, **small}


def open_checkpoint(model_id: str | os.PathLike) -> Checkpoint:
    """Finds a plain classifier; its weights are not loaded yet.

    Args:
        model_id: a folder, or a name on the hub.

    Raises:
        ArtifactError: not there, or an adapter.
        ConfigError: it has exits already.
        UnsupportedModelError: a family, head or configuration that cannot carry exits.
    """
    folder = fetch(model_id)
    refuse_adapter(folder)
    if not (folder / CONFIG_FILE).is_file():
        raise ArtifactError(f"{folder} has no {CONFIG_FILE}: it is not a model folder.")
    config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    if (folder / SETTINGS_FILE).is_file() or config.get("sweet"):
        has = (config.get("sweet") or {}).get("exits") or ()
        raise ConfigError(
            f"{model_id} has exits already{': ' if has else ''}{', '.join(map(str, has))}. Exits are added to a plain "
            "checkpoint; take the one that this was made from, or go on with `itrex-sweet quantize` and `calibrate`."
        )
    family_of(_with_defaults(config))
    depth = config.get("num_hidden_layers", config.get("n_layers"))
    name = folder.resolve().name if Path(model_id).is_dir() else str(model_id)
    if not isinstance(depth, int):
        from transformers import AutoConfig

        depth = AutoConfig.from_pretrained(folder, trust_remote_code=False).num_hidden_layers
    return Checkpoint(folder, name, depth)


def _with_defaults(config: dict[str, Any]) -> SimpleNamespace:
    """The config as an object; labels are counted as transformers counts them."""
    labels = config.get("id2label")
    named = {"num_labels": len(labels)} if isinstance(labels, dict) else {}
    return SimpleNamespace(**{**config, **named})
