"""Observes linear layers with plain hooks, in place of Neural Compressor."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from itrex_sweet.artifact import Artifact
from itrex_sweet.families import Family, family_of
from itrex_sweet.quantization.observation import LinearObservation, Observations
from itrex_sweet.quantization.packing import quantizable_layers
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_models import unrotated


def with_private_layers(model: torch.nn.Module, artifact: Artifact) -> torch.nn.Module:
    """Adds the private layers of exits, which run with the inputs of the trunk's layers in each forward pass."""
    row, tensors = family_of(model.config), artifact.tensors()
    model.sweet_exits = torch.nn.ModuleDict()
    for exit_ in artifact.private_exits:
        path, shared = f"{row.private_layer_path(exit_)}.", model.get_submodule(f"{row.layers_path}.{exit_ - 1}")
        private = copy.deepcopy(shared)
        private.load_state_dict({name.removeprefix(path): tensors[name] for name in tensors if name.startswith(path)})
        model.sweet_exits[str(exit_)] = torch.nn.ModuleDict({"layer": private})
        shared.register_forward_pre_hook(_run_layer(private, row), with_kwargs=True)
    return model


def _run_layer(layer: torch.nn.Module, row: Family) -> Callable[..., None]:
    def run(_, args, kwargs) -> None:
        if row.attention == "rotary":
            args, kwargs = unrotated(args, kwargs)
        layer(*args, **kwargs)

    return run


@torch.inference_mode()
def observe_with_hooks(artifact: Artifact, rows: TokenBatch, recipe: str, **_) -> Observations:
    """Replaces `itrex_sweet.quantization.observation.observe`."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the plain model has no exit heads
    model = AutoModelForSequenceClassification.from_pretrained(artifact.directory).eval()
    logging.set_verbosity(verbosity)
    seen = {path: [] for path in quantizable_layers(artifact)}
    with_private_layers(model, artifact)
    for path, inputs in seen.items():
        positions = slice(0, 1) if path.startswith("sweet_exits.") else slice(None)
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, inputs=inputs, positions=positions: inputs.append(args[0][:, positions])
        )
    for ids in rows.rows():
        ids = torch.from_numpy(ids)[None]
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    linears = {}
    for path, inputs in seen.items():
        states = torch.cat([part.flatten(0, -2) for part in inputs])
        weight, smoothing = model.get_submodule(path).weight, None
        if recipe == "smooth":
            smoothing = states.abs().amax(0).clamp(min=1e-3).rsqrt()
            weight, states = weight / smoothing, states * smoothing
        minimum, maximum = states.min().clamp(max=0).item(), states.max().clamp(min=0).item()
        scale = (maximum - minimum) / 255
        fixed = {} if recipe == "dynamic" else {"input_scale": scale, "input_zero_point": round(-minimum / scale)}
        linears[path] = LinearObservation(weight.abs().amax(1) / 127, input_smoothing=smoothing, **fixed)
    return Observations(linears, "hooks", {"hooks": "1"})
