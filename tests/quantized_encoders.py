"""8-bit encoders made by hand from float ones, with the ranges that rows of random tokens have."""

from __future__ import annotations

import dataclasses

import torch

from itrex_sweet.runtime.dense.subgraphs import Embed
from itrex_sweet.runtime.encoder import Encoder, Linear, QuantizedLinear

PROJECTIONS = ("query", "key", "value", "attention_output", "up", "down")
MODULES = {name: f"rest.{name}" for name in PROJECTIONS[3:]} | dict.fromkeys(PROJECTIONS[:3], "attention.projections")


def quantized(encoder: Encoder, recipe: str, rows: int = 16, length: int = 12) -> Encoder:
    """A float encoder in 8 bits.

    Args:
        recipe: `"static"`, `"smooth"`, `"dynamic"`, or `"mixed"`: static with some layers kept in float.
        rows: of random tokens that the ranges are measured on.
        length: of these rows.
    """
    inputs = inputs_of_projections(encoder, rows, length)
    layers = []
    for index, layer in enumerate(encoder.layers):
        quantize = {
            name: quantized_linear(getattr(layer, name), inputs[index, MODULES[name]], recipe)
            for name in PROJECTIONS
            if recipe != "mixed" or name not in ("key", "down")
        }
        layers.append(dataclasses.replace(layer, **quantize))
    return dataclasses.replace(encoder, layers=tuple(layers))


@torch.inference_mode()
def inputs_of_projections(encoder: Encoder, rows: int, length: int) -> dict[tuple[int, str], torch.Tensor]:
    """What enters the linear layers, (tokens, in), by layer and module, all layers run in full."""
    model = Embed(encoder, encoder.layers)
    seen = {}
    for index, layer in enumerate(model.layers.layers):
        for path in set(MODULES.values()):
            layer.get_submodule(path).register_forward_pre_hook(
                lambda _, inputs, where=(index, path): seen.__setitem__(where, inputs[0].clone())
            )
    ids = torch.randint(5, len(encoder.embeddings.words), (rows, length), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(length).expand(rows, -1)
    model(ids, torch.zeros_like(ids), positions, torch.ones_like(ids, dtype=torch.bool))
    return seen


def quantized_linear(linear: Linear, entering: torch.Tensor, recipe: str) -> QuantizedLinear:
    """Weight symmetric per output channel, input by its least and greatest value."""
    smoothing, weight = None, linear.weight
    if recipe == "smooth":
        smoothing = entering.abs().amax(0).clamp(min=1e-3).rsqrt()
        weight, entering = weight / smoothing, entering * smoothing
    scale = weight.abs().amax(1) / 127
    least, most = entering.amin().clamp(max=0.0), entering.amax().clamp(min=0.0)
    input_scale = ((most - least) / 255).item()
    is_static = recipe != "dynamic"
    return QuantizedLinear(
        weight=torch.round(weight / scale[:, None]).to(torch.int8),
        weight_scale=scale,
        bias=linear.bias,
        input_scale=input_scale if is_static else None,
        input_zero_point=round(-least.item() / input_scale) if is_static else None,
        input_smoothing=smoothing,
    )
