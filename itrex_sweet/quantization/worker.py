"""The process that runs Neural Compressor: reads a request from a folder, observes, and writes the result there.

`python -m itrex_sweet.quantization.worker FOLDER` is started by `observation`. It writes one JSON object per line to
standard output: progress, or an error of this package. Output of libraries goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from itrex_sweet.artifact import Artifact, open_artifact
from itrex_sweet.artifact.contents import replaced
from itrex_sweet.errors import ArtifactError, BackendUnavailable, SweetError
from itrex_sweet.families import family_of
from itrex_sweet.quantization.inc_linears import CalibrationInputs, Linears, layers_by_input
from itrex_sweet.quantization.inc_parameters import QuantizationParameters
from itrex_sweet.quantization.observation import DYNAMIC, IPEX, PT2E, REQUEST_FILE, RESULT_FILE, ROWS_FILE, SMOOTH
from itrex_sweet.quantization.private_layers import add_private_layers
from itrex_sweet.runtime.ragged import TokenBatch

Tensors = dict[str, torch.Tensor]  # named by layer and field of `LinearObservation`

_PACKAGES = {PT2E: ("torchao",), IPEX: ("intel-extension-for-pytorch",)}


def main(folder: Path) -> int:
    """Handles the request in `folder`; returns the exit status."""
    send = _reserve_standard_output()
    try:
        request = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
        torch.set_num_threads(request.pop("threads"))
        with np.load(folder / ROWS_FILE, allow_pickle=False) as arrays:
            rows = TokenBatch(**arrays)
        artifact = open_artifact(request.pop("artifact"))
        if artifact.contents.identity != request.pop("identity"):
            raise replaced(artifact.directory)
        tensors, facts = observe_here(artifact, rows, report=send, **request)
        save_file(tensors, folder / RESULT_FILE, metadata=facts)
    except SweetError as error:
        send(error=type(error).__name__, message=str(error))
        return 1
    return 0


def observe_here(
    artifact: Artifact,
    rows: TokenBatch,
    recipe: str,
    alpha: float,
    batch_size: int,
    path: str | None,
    report: Callable[..., None],
) -> tuple[Tensors, dict[str, str]]:
    """Observes in this process; see `observation.observe` for arguments and errors.

    Returns:
        tensors, and facts: the implementation used, versions, and the layers in order.
    """
    report(stage="starting", done=0, rows=len(rows))
    path = _select_path(path, recipe)
    model = _float_model(artifact)
    family = family_of(model.config)
    layers = layers_by_input(family, model.config.num_hidden_layers, artifact.private_exits)
    weights = [torch.cat([model.get_submodule(name).weight.detach() for name in names]) for names in layers]

    def inputs(stage: str, smoothing: Sequence[torch.Tensor] | None = None, **options: Any) -> CalibrationInputs:
        def progress(done: int, count: int) -> None:
            report(stage=stage, done=done, rows=count)

        settings = (rows, batch_size, progress, artifact.private_exits, smoothing)
        return CalibrationInputs(model, family, layers, *settings, **options)

    smoothing = None
    if recipe == SMOOTH:
        from itrex_sweet.quantization.inc_smoothing import smoothing_factors

        smoothing = smoothing_factors(Linears(weights), inputs("smoothing", for_smoothing=True), alpha)
        weights = [weight / factors for weight, factors in zip(weights, smoothing, strict=True)]
    # Only one of the two may be imported: Neural Compressor selects its implementation by it.
    if path == IPEX:
        from itrex_sweet.quantization.inc_ipex import observe_static

        ranges = observe_static(Linears(weights), inputs("calibrating", smoothing))
    else:
        from itrex_sweet.quantization.inc_pt2e import observe_dynamic, observe_static

        linears = Linears(weights)
        ranges = (
            observe_dynamic(linears) if recipe == DYNAMIC else observe_static(linears, inputs("calibrating", smoothing))
        )
    tensors = _split_by_layer(model, layers, ranges, smoothing)
    return tensors, dict(
        path=path, versions=json.dumps(_versions(path)), layers=json.dumps([name for names in layers for name in names])
    )


def _select_path(requested: str | None, recipe: str) -> str:
    """Returns the implementation to use; imports IPEX for its own, which must precede Neural Compressor."""
    if requested == PT2E or recipe == DYNAMIC:
        return PT2E
    from itrex_sweet.runtime.backends.ipex import import_ipex

    try:
        import_ipex()
    except BackendUnavailable:
        if requested == IPEX:
            raise
        return PT2E
    return IPEX


def _float_model(artifact: Artifact) -> PreTrainedModel:
    """Loads the Hugging Face model of an artifact in evaluation mode, with private layers, without exit heads."""
    config = artifact.model_config()
    model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False).float()
    add_private_layers(model, family_of(config), artifact.private_exits)
    missing = model.load_state_dict(artifact.tensors(), strict=False).missing_keys
    if missing:
        raise ArtifactError(
            f"{artifact.directory}: {missing[0]!r} is missing from the weights; write the artifact again."
        )
    return model.eval()


def _split_by_layer(
    model: PreTrainedModel,
    layers: Sequence[tuple[str, ...]],
    ranges: Sequence[QuantizationParameters],
    smoothing: Sequence[torch.Tensor] | None,
) -> Tensors:
    """Splits the parameters of concatenated layers."""
    tensors: Tensors = {}
    for index, (names, found) in enumerate(zip(layers, ranges, strict=True)):
        outputs = [model.get_submodule(name).out_features for name in names]
        for name, scales in zip(names, found.weight_scale.split(outputs), strict=True):
            tensors[f"{name}.weight_scale"] = scales.float().clone()
            if found.input_scale is not None:
                tensors[f"{name}.input_scale"] = torch.tensor(found.input_scale, dtype=torch.float32)
                tensors[f"{name}.input_zero_point"] = torch.tensor(found.input_zero_point, dtype=torch.int32)
            if smoothing is not None:
                tensors[f"{name}.input_smoothing"] = smoothing[index].clone()
    return tensors


def _versions(path: str) -> dict[str, str]:
    """Returns the versions of the packages used; Neural Compressor has two distribution names."""
    versions = {}
    for package in ("neural-compressor-pt", "neural-compressor", "torch", *_PACKAGES[path]):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _reserve_standard_output() -> Callable[..., None]:
    """Redirects standard output to standard error; returns a function that writes messages to the original one."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(**message: object) -> None:
        print(json.dumps(message), file=channel, flush=True)

    return send


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
