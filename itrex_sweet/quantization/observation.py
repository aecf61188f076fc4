"""Observes a model with Neural Compressor in a separate process.

Neural Compressor selects its implementation by the imported packages, writes temporary files into the working
directory under names with a resolution of one second, and logs verbosely. It therefore runs in a process and a folder
of its own, which reports progress, the result or an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

import itrex_sweet
from itrex_sweet import errors
from itrex_sweet.artifact import EARLY_EXIT, FLOAT32, Artifact
from itrex_sweet.errors import ConfigError, InputError, QuantizationError, SweetError
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.supervision import output_lines, supervised, working_folder

STATIC, SMOOTH, DYNAMIC = "static", "smooth", "dynamic"
IPEX, PT2E = "ipex", "pt2e"

REQUEST_FILE, ROWS_FILE, RESULT_FILE, LOG_FILE = "request.json", "rows.npz", "result.safetensors", "worker.log"
_WORKER = (sys.executable, "-m", "itrex_sweet.quantization.worker")
_NUM_LOG_LINES = 15

Progress = Callable[[str, int, int], None]  # stage, rows done, rows


@dataclass(frozen=True)
class LinearObservation:
    """Quantization parameters of one linear layer.

    Args:
        weight_scale: (out,) float32. Weights are quantized as `round(weight / input_smoothing / weight_scale)`, clipped
            to [-127, 127]; the largest weight of a channel is 127.5 scales, as in Neural Compressor.
        input_scale: of the uint8 input; `None` if the input is quantized dynamically.
        input_zero_point: 0 to 255; `None` if `input_scale` is.
        input_smoothing: (in,) float32, factors of the input before quantization, or `None`.
    """

    weight_scale: torch.Tensor
    input_scale: float | None = None
    input_zero_point: int | None = None
    input_smoothing: torch.Tensor | None = None


@dataclass(frozen=True)
class Observations:
    """The result of an observation.

    Args:
        linears: quantization parameters by module path in the Hugging Face model.
        path: `"ipex"` or `"pt2e"`, the implementation of Neural Compressor.
        versions: of Neural Compressor and the packages it used.
    """

    linears: dict[str, LinearObservation]
    path: str
    versions: dict[str, str]


def observe(
    artifact: Artifact,
    rows: TokenBatch,
    recipe: str,
    *,
    alpha: float = 0.5,
    batch_size: int = 32,
    path: str | None = None,
    progress: Progress | None = None,
) -> Observations:
    """Runs the float model on rows while Neural Compressor observes the inputs of its linear layers.

    Args:
        artifact: an early-exit model in float32.
        rows: calibration rows; not used by `"dynamic"`.
        recipe: `"static"` (a scale and zero point per input), `"smooth"` (the same after SmoothQuant) or `"dynamic"`
            (weights only).
        alpha: migration strength of SmoothQuant, in [0, 1].
        batch_size: maximum number of rows per batch.
        path: `"ipex"`, `"pt2e"`, or `None` for IPEX if it is available. `"dynamic"` needs `"pt2e"`.
        progress: called with (stage, rows done, rows).

    Returns:
        parameters of each linear layer of the encoder. Query, key and value of a layer share those of their input. An
        input that was always 0 has scale 1.

    Raises:
        ConfigError: an unknown recipe or path, an invalid setting, or not a float32 early-exit model.
        InputError: no rows.
        BackendUnavailable: `path="ipex"`, and IPEX is not available.
        QuantizationError: non-finite weights or activations, or a failure of Neural Compressor; the message says where.
        ArtifactError: weights are missing.
    """
    _check_arguments(artifact, rows, recipe, alpha, batch_size, path)
    with working_folder("itrex-sweet-observing-") as folder:
        request = dict(
            artifact=str(artifact.directory.resolve()),
            identity=artifact.contents.identity,
            recipe=recipe,
            alpha=alpha,
            batch_size=batch_size,
            path=path,
            threads=torch.get_num_threads(),
        )
        (folder / REQUEST_FILE).write_text(json.dumps(request), encoding="utf-8")
        np.savez(folder / ROWS_FILE, **rows.arrays())
        _run_worker(folder, progress)
        return _read_result(folder / RESULT_FILE)


def _check_arguments(
    artifact: Artifact, rows: TokenBatch, recipe: str, alpha: float, batch_size: int, path: str | None
) -> None:
    for name, value, choices in (
        ("recipe", recipe, (STATIC, SMOOTH, DYNAMIC)),
        ("path", path, (None, IPEX, PT2E)),
    ):
        if value not in choices:
            raise ConfigError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}.")
    if recipe == DYNAMIC and path == IPEX:
        raise ConfigError("recipe='dynamic' with path='ipex': it needs path='pt2e'.")
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha={alpha}: must lie in [0, 1].")
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be at least 1.")
    if artifact.precision != FLOAT32 or artifact.architecture != EARLY_EXIT:
        raise ConfigError(
            f"{artifact.directory} ({artifact.architecture}, {artifact.precision}): only early-exit models in "
            "float32 can be quantized."
        )
    if not len(rows) and recipe != DYNAMIC:
        raise InputError("no rows to calibrate on: activation ranges need rows.")


def _run_worker(folder: Path, progress: Progress | None) -> None:
    """Runs the worker process; it and its children are terminated if this process is interrupted or killed."""
    failure: SweetError | None = None
    with (
        (folder / LOG_FILE).open("wb") as log,
        supervised(
            (*_WORKER, str(folder)),
            folder,
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as worker,
    ):
        for line in output_lines(worker):
            if not line.startswith("{"):
                continue  # output of an imported library
            message = json.loads(line)
            if "error" in message:
                failure = getattr(errors, message["error"])(message["message"])
            elif progress is not None:
                progress(message["stage"], message["done"], message["rows"])
    if failure is not None:
        raise failure
    if worker.returncode != 0:
        raise QuantizationError(_describe_failure(worker.returncode, folder / LOG_FILE))


def _environment(folder: Path) -> dict[str, str]:
    """Returns this process's environment with caches and temporary files in `folder`."""
    root = str(Path(itrex_sweet.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "OMP_WAIT_POLICY": "passive",  # active waiting is very slow on busy cores
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "INC_TARGET_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }


def _describe_failure(status: int, log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    cause = f"was killed by signal {-status} (out of memory?)" if status < 0 else f"failed with status {status}"
    return "\n    ".join([f"Neural Compressor's process {cause}. Last lines of its log:", *lines[-_NUM_LOG_LINES:]])


def _read_result(path: Path) -> Observations:
    with safe_open(path, framework="pt") as result:
        facts: Mapping[str, str] = result.metadata()
        parts: dict[str, dict[str, Any]] = {}
        for name in result.keys():  # noqa: SIM118 -- not a mapping
            layer, part = name.rsplit(".", 1)
            tensor = result.get_tensor(name)
            parts.setdefault(layer, {})[part] = tensor if tensor.dim() else tensor.item()
    linears = {layer: LinearObservation(**parts[layer]) for layer in json.loads(facts["layers"])}
    return Observations(linears, facts["path"], json.loads(facts["versions"]))
