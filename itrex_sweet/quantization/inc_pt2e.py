"""Neural Compressor without IPEX: `torch.export` and observers of torchao; scales are read from the converted graph.

Import this module only if IPEX is not imported: Neural Compressor selects its implementation by it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch
from neural_compressor.torch.export import export
from neural_compressor.torch.quantization import DynamicQuantConfig, StaticQuantConfig, convert, prepare

from itrex_sweet.errors import QuantizationError
from itrex_sweet.quantization.inc_linears import Inputs, Linears
from itrex_sweet.quantization.inc_parameters import QuantizationParameters


def observe_static(linears: Linears, inputs: Iterable[Inputs]) -> list[QuantizationParameters]:
    """Returns weight scales per output channel, and scale and zero point of each input by its minimum and maximum."""
    prepared = prepare(_exported(linears), StaticQuantConfig(act_sym=False, act_algo="minmax"))
    _use_min_max_observers(prepared)
    with torch.no_grad():
        for batch in inputs:
            prepared(*batch)
    return _parse_graph(convert(prepared), linears, static=True)


def observe_dynamic(linears: Linears) -> list[QuantizationParameters]:
    """Returns weight scales per output channel; inputs are quantized dynamically."""
    prepared = prepare(_exported(linears), DynamicQuantConfig(w_granularity="per_channel"))
    with torch.no_grad():
        prepared(*_example(linears))
    return _parse_graph(convert(prepared), linears, static=False)


def _example(linears: Linears) -> Inputs:
    return tuple(torch.zeros(2, linear.in_features) for linear in linears.linears)


def _exported(linears: Linears) -> torch.fx.GraphModule:
    # One dimension per layer: private layers of exits get only first tokens.
    shapes = {"inputs": tuple({0: torch.export.Dim(f"rows_{index}", min=1)} for index in range(len(linears.linears)))}
    return export(linears, _example(linears), dynamic_shapes=shapes)


def _use_min_max_observers(prepared: torch.fx.GraphModule) -> None:
    """Replaces moving-average observers with min-max observers.

    Since version 3.8, "minmax" of Neural Compressor is a moving average with a factor of 0.01 per batch, which is
    dominated by the first batch and clips later extremes.
    """
    for name, observer in list(prepared.named_children()):
        if type(observer).__name__ == "MovingAverageMinMaxObserver":
            observer_class = sys.modules[type(observer).__module__].MinMaxObserver
            setattr(
                prepared,
                name,
                observer_class(
                    dtype=observer.dtype,
                    qscheme=observer.qscheme,
                    quant_min=observer.quant_min,
                    quant_max=observer.quant_max,
                ),
            )


def _parse_graph(converted: torch.fx.GraphModule, linears: Linears, static: bool) -> list[QuantizationParameters]:
    """Reads parameters from the graph; a layer is `linear(dequantize(quantize(x)), dequantize(quantize(w)))`."""
    found: dict[str, QuantizationParameters] = {}
    for node in converted.graph.nodes:
        if node.target is torch.ops.aten.linear.default:
            states, weight = node.args[:2]
            try:
                scales = converted.get_buffer(weight.args[1].target)
                path = weight.args[0].args[0].target.removesuffix(".weight")
                found[path] = (
                    QuantizationParameters(scales, *states.args[1:3])
                    if static
                    else QuantizationParameters(scales, None, None)
                )
            except (AttributeError, IndexError, TypeError):
                continue  # left in float, reported below
    paths = [linears.path(index) for index in range(len(linears.linears))]
    if missing := [path for path in paths if path not in found]:
        raise QuantizationError(
            f"Neural Compressor left {len(missing)} of {len(paths)} linear layers in float, or wrote an unknown "
            "graph. Install the versions in requirements/."
        )
    return [found[path] for path in paths]
