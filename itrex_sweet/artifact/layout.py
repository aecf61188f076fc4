"""File names, the schema, and reading a single file of the format."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from itrex_sweet.errors import ArtifactError

FORMAT = "itrex-sweet"
SCHEMA_VERSION = 2  # what this release reads; a folder names the oldest that can read it
EARLY_EXIT, CASCADE = "early_exit", "cascade"
FLOAT32, INT8 = "float32", "int8"
SCHEMA_OF_PRECISION = {FLOAT32: 1, INT8: 2}

SETTINGS_FILE = "sweet_config.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
INT8_WEIGHTS_FILE = "model_int8.safetensors"  # a name of its own: transformers would load it as float weights
FINGERPRINTS_FILE = "fingerprints.safetensors"
CARD_FILE = "README.md"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.parent} has no {path.name}: it is not a model folder.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); the folder is damaged.") from error
    if not isinstance(contents, dict):
        raise ArtifactError(f"{path} holds {type(contents).__name__}, not an object; the folder is damaged.")
    return contents


def weight_files(directory: Path, precision: str = FLOAT32) -> list[Path]:
    """The safetensors files of a model folder, one or several shards.

    Raises:
        ArtifactError: there are none; pickled weights do not count.
    """
    if precision == INT8:
        if not (directory / INT8_WEIGHTS_FILE).is_file():
            raise ArtifactError(f"{directory} has no {INT8_WEIGHTS_FILE}; copy the whole folder again.")
        return [directory / INT8_WEIGHTS_FILE]
    if (directory / WEIGHTS_FILE).is_file():
        return [directory / WEIGHTS_FILE]
    if (directory / WEIGHTS_INDEX_FILE).is_file():
        shards = sorted(set(read_json(directory / WEIGHTS_INDEX_FILE).get("weight_map", {}).values()))
        if any(Path(shard).name != shard for shard in shards):
            raise ArtifactError(f"{directory / WEIGHTS_INDEX_FILE} names files outside its folder: {shards}.")
        return [directory / shard for shard in shards]
    if any(directory.glob("adapter_model.*")):
        raise ArtifactError(
            f"{directory} holds an adapter, not a model: merge it and write the artifact with "
            "itrex_sweet.save_artifact(model, directory, tokenizer)."
        )
    raise ArtifactError(f"{directory} has no {WEIGHTS_FILE}; only safetensors weights are read.")


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
