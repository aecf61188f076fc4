"""Reads exit heads from a folder; `from_pretrained` ignores them as unexpected weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open

from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.families import EXIT_HEADS

_FILES = ("model.safetensors", "adapter_model.safetensors")
_INDEX = "model.safetensors.index.json"
# With bias="all", PEFT also saves the biases inside its wrappers: the trained one again, and the original one.
_INSIDE_WRAPPERS = ("modules_to_save.", "original_module.")


def load_head_weights(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Reads the weights of the exit heads from a folder that `save_pretrained` or `trainer.save_model` wrote.

    Args:
        folder: with safetensors: one file, shards with an index, or a PEFT adapter.

    Returns:
        Name below `sweet_exits.` → tensor, such as `"4.dense.weight"`; empty if the folder has no heads.

    Raises:
        TrainingSetupError: the index names a file that does not exist.
    """
    heads: dict[str, torch.Tensor] = {}
    for file in _weight_files(Path(folder)):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - safe_open is not a mapping
                prefix, separator, name = key.partition(f"{EXIT_HEADS}.")
                if (
                    separator
                    and prefix in ("", "base_model.model.")
                    and not any(part in name for part in _INSIDE_WRAPPERS)
                ):
                    heads[name] = tensors.get_tensor(key)
    return heads


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in named if not (folder / name).is_file()]
        if missing:
            raise TrainingSetupError(f"{index} names {', '.join(missing)}, which does not exist in the folder.")
        return [folder / name for name in named]
    return [folder / name for name in _FILES if (folder / name).is_file()]
