"""Exit heads in a folder on disk, which `from_pretrained` leaves behind as unexpected weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open

from itrex_sweet.errors import TrainingSetupError
from itrex_sweet.families import EXIT_HEADS

_WHOLE = ("model.safetensors", "adapter_model.safetensors")
_INDEX = "model.safetensors.index.json"
# With bias="all", PEFT saves every bias under the names inside its wrappers too: the trained one a second time, and the
# one from before training.
_INSIDE_WRAPPERS = ("modules_to_save.", "original_module.")


def saved_heads(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Weights of the exit heads in a folder that `save_pretrained` or `trainer.save_model` wrote.

    Args:
        folder: holds safetensors, whole, sharded with an index, or of a PEFT adapter.

    Returns:
        Name below `sweet_exits.` → tensor, such as `"4.dense.weight"`; empty where the folder holds no heads.

    Raises:
        TrainingSetupError: an index that names a file which is not there.
    """
    heads: dict[str, torch.Tensor] = {}
    for file in _weight_files(Path(folder)):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a mapping
                before, mark, name = key.partition(f"{EXIT_HEADS}.")
                if mark and before in ("", "base_model.model.") and not any(part in name for part in _INSIDE_WRAPPERS):
                    heads[name] = tensors.get_tensor(key)
    return heads


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        named = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in named if not (folder / name).is_file()]
        if missing:
            raise TrainingSetupError(f"{index} names {', '.join(missing)}, which the folder does not hold.")
        return [folder / name for name in named]
    return [folder / name for name in _WHOLE if (folder / name).is_file()]
