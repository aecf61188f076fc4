"""Changes files, fields and tensors of artifacts on disk, with correct hashes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact import manifest
from itrex_sweet.artifact.layout import SETTINGS_FILE

NUMPY_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
}


@dataclass
class RawTensor:
    """A tensor as a safetensors file describes it; type, shape and data need not be consistent."""

    dtype: str
    shape: list[Any]
    data: bytes

    @property
    def values(self) -> np.ndarray:
        return np.frombuffer(self.data, NUMPY_TYPES[self.dtype]).reshape(self.shape).copy()

    @classmethod
    def of(cls, values: np.ndarray, dtype: str) -> RawTensor:
        values = np.asarray(values).astype(NUMPY_TYPES[dtype])
        return cls(dtype, list(values.shape), values.tobytes())

    def reshaped(self, *shape: int) -> RawTensor:
        """Returns a tensor of another shape, its numbers repeated or truncated."""
        return RawTensor.of(np.resize(self.values, shape), self.dtype)


def read_tensors(path: Path) -> dict[str, RawTensor]:
    contents = path.read_bytes()
    size = int.from_bytes(contents[:8], "little")
    header, data = json.loads(contents[8 : 8 + size]), contents[8 + size :]
    header.pop("__metadata__", None)
    return {
        name: RawTensor(facts["dtype"], facts["shape"], data[slice(*facts["data_offsets"])])
        for name, facts in header.items()
    }


def write_tensors(path: Path, tensors: dict[str, RawTensor], misaligned_by: int = 0) -> None:
    """Writes a safetensors file whose data is `misaligned_by` bytes off the alignment of 8."""
    header, place = {}, 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [place, place + len(tensor.data)],
        }
        place += len(tensor.data)
    write_raw(path, json.dumps(header), b"".join(tensor.data for tensor in tensors.values()), misaligned_by)


def write_raw(path: Path, header: str, data: bytes, misaligned_by: int = 0) -> None:
    text = header.encode()
    text += b" " * (-len(text) % 8 + misaligned_by)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def weights_of(directory: Path) -> Path:
    """Returns the path of the safetensors file of an early-exit artifact."""
    return next(
        path for name in ("model.safetensors", "model_int8.safetensors") if (path := directory / name).is_file()
    )


def edit_tensors(directory: Path, change: Callable[[dict[str, RawTensor]], Any], **options: Any) -> None:
    path = weights_of(directory)
    tensors = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, **options)
    recompute_hashes(directory)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))


def edit_settings(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit_json(directory / SETTINGS_FILE, change)
    recompute_hashes(directory)


def edit_config(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit_json(directory / "config.json", change)
    recompute_hashes(directory)


def recompute_hashes(directory: Path) -> None:
    """Updates sizes, hashes and the digest of the settings, if the settings can still be read."""
    path = directory / SETTINGS_FILE
    if not path.is_file():
        return
    try:
        settings = json.loads(path.read_bytes())
        files = settings["files"]
        for name in files:
            if (directory / name).is_file():
                contents = (directory / name).read_bytes()
                files[name] = {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
        if manifest.DIGEST in settings:
            settings[manifest.DIGEST] = manifest.settings_digest(settings)
        path.write_text(json.dumps(settings))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return


def quantized_tensors(
    directory: Path, recipe: str, layers: list[str], seed: int = 0, tables: Sequence[str] = ()
) -> dict[str, RawTensor]:
    """Returns the tensors of a float artifact with some linear layers and embedding tables in INT8.

    Args:
        recipe: `"static"`, `"smooth"` or `"dynamic"`.
        layers: paths of the layers.
        tables: paths of the tables.
    """
    rng = np.random.default_rng(seed)
    tensors = read_tensors(weights_of(directory))
    for path in layers:
        weight = tensors[f"{path}.weight"].values
        if recipe == "smooth":
            smoothing = rng.uniform(0.5, 2.0, weight.shape[1])
            tensors[f"{path}.input_smoothing"] = RawTensor.of(smoothing, "F32")
            weight = weight / smoothing
        scale = np.abs(weight).max(axis=1) / 127
        tensors[f"{path}.weight"] = RawTensor.of(np.round(weight / scale[:, None]), "I8")
        tensors[f"{path}.weight_scale"] = RawTensor.of(scale, "F32")
        if recipe != "dynamic":
            tensors[f"{path}.input_scale"] = RawTensor.of(np.array(rng.uniform(0.02, 0.05)), "F32")
            tensors[f"{path}.input_zero_point"] = RawTensor.of(np.array(rng.integers(100, 150)), "I32")
    for path in tables:
        table = tensors[f"{path}.weight"].values
        scale = np.maximum(np.abs(table).max(axis=1), 1e-30) / 127
        tensors[f"{path}.weight"] = RawTensor.of(np.round(table / scale[:, None]), "I8")
        tensors[f"{path}.weight_scale"] = RawTensor.of(scale, "F32")
    return tensors


def with_value(tensor: RawTensor, value: float, place: int = 0) -> RawTensor:
    """Returns the tensor with one number replaced."""
    values = tensor.values.reshape(-1)
    values[place % len(values)] = value
    return replace(tensor, data=values.tobytes())


def numbers_in(shape: list[Any]) -> int:
    return math.prod(shape)
