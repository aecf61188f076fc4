"""INT8 encoders made from float ones, with input ranges observed on random tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from itrex_sweet.runtime.dense.subgraphs import Embed, FullLayer
from itrex_sweet.runtime.encoder import Encoder, Layer, Linear, QuantizedLinear, QuantizedTable

PROJECTIONS = ("query", "key", "value", "attention_output", "up", "down", "gate")
MODULES = {name: f"rest.{name}" for name in PROJECTIONS[3:]} | dict.fromkeys(PROJECTIONS[:3], "attention.projections")


def quantized(encoder: Encoder, recipe: str, rows: int = 16, length: int = 12) -> Encoder:
    """Quantizes the layers of a float encoder to INT8.

    Args:
        recipe: `"static"`, `"smooth"`, `"dynamic"`, or `"mixed"`: static with some layers kept in float.
        rows: of random tokens that the ranges are measured on.
        length: of these rows.
    """
    inputs = inputs_of_projections(encoder, rows, length)
    layers = {}
    for layer in encoder.layers:
        quantize = {
            name: quantized_linear(getattr(layer, name), inputs[id(layer), MODULES[name]], recipe)
            for name in PROJECTIONS
            if getattr(layer, name) is not None and (recipe != "mixed" or name not in ("key", "down"))
        }
        layers[id(layer)] = dataclasses.replace(layer, **quantize)
    return dataclasses.replace(
        encoder,
        segments=tuple(tuple(layers[id(layer)] for layer in segment) for segment in encoder.segments),
        probes=tuple(dataclasses.replace(probe, layer=layers[id(probe.layer)]) for probe in encoder.probes),
    )


@torch.inference_mode()
def inputs_of_projections(encoder: Encoder, rows: int, length: int) -> dict[tuple[int, str], torch.Tensor]:
    """Returns the inputs of the linear layers, (tokens, in), by the layer's identity and module, from full layers."""
    model = Embed(encoder, encoder.trunk)
    seen = {}

    def watch(full: FullLayer, described: Layer) -> None:
        for path in {path for name, path in MODULES.items() if getattr(described, name) is not None}:
            where = id(described), path
            full.get_submodule(path).register_forward_pre_hook(
                lambda _, inputs, where=where: seen.__setitem__(where, inputs[0].clone())
            )

    for full, layer in zip(model.layers.layers, encoder.trunk, strict=True):
        watch(full, layer)
    for place, probe in enumerate(encoder.probes):
        if not any(probe.layer is layer for layer in encoder.trunk):
            private = FullLayer(encoder, probe.layer)
            watch(private, probe.layer)
            before = sum(map(len, encoder.segments[: place + 1]))
            model.layers.layers[before].register_forward_pre_hook(_also(private))
    ids = torch.randint(5, len(encoder.embeddings.words), (rows, length), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(length).expand(rows, -1)
    model(ids, torch.zeros_like(ids), positions, torch.ones_like(ids, dtype=torch.bool))
    return seen


def _also(private: FullLayer) -> Callable[..., None]:
    """Returns a hook that runs a layer on the input of another one."""

    def run(_: torch.nn.Module, inputs: tuple) -> None:
        private(*inputs)

    return run


def with_int8_words(encoder: Encoder) -> Encoder:
    """Quantizes the word embeddings symmetrically per entry; everything else stays as it is."""
    table = encoder.embeddings.words
    scale = (table.abs().amax(1) / 127).clamp(min=1e-30)
    words = QuantizedTable(torch.round(table / scale[:, None]).to(torch.int8), scale)
    return dataclasses.replace(encoder, embeddings=dataclasses.replace(encoder.embeddings, words=words))


def quantized_linear(linear: Linear, entering: torch.Tensor, recipe: str) -> QuantizedLinear:
    """Quantizes the weight symmetrically per output channel, the input by its minimum and maximum."""
    smoothing, weight = None, linear.weight
    if recipe == "smooth":
        smoothing = entering.abs().amax(0).clamp(min=1e-3).rsqrt()
        weight, entering = weight / smoothing, entering * smoothing
    scale = weight.abs().amax(1) / 127
    minimum, maximum = entering.amin().clamp(max=0.0), entering.amax().clamp(min=0.0)
    input_scale = ((maximum - minimum) / 255).item()
    is_static = recipe != "dynamic"
    return QuantizedLinear(
        weight=torch.round(weight / scale[:, None]).to(torch.int8),
        weight_scale=scale,
        bias=linear.bias,
        input_scale=input_scale if is_static else None,
        input_zero_point=round(-minimum.item() / input_scale) if is_static else None,
        input_smoothing=smoothing,
    )
