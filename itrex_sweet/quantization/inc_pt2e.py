"""Neural Compressor's path without IPEX: `torch.export`, observers of torchao, scales read off the converted graph.

Import it only where IPEX was not imported: Neural Compressor chooses its path by that.
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
    """Weight scales per output channel, and scale and zero point of every input, from its least and greatest value."""
    prepared = prepare(_exported(linears), StaticQuantConfig(act_sym=False, act_algo="minmax"))
    _observe_least_and_greatest(prepared)
    with torch.no_grad():
        for batch in inputs:
            prepared(*batch)
    return _ranges(convert(prepared), linears, static=True)


def observe_dynamic(linears: Linears) -> list[QuantizationParameters]:
    """Weight scales per output channel; inputs are measured at run time."""
    prepared = prepare(_exported(linears), DynamicQuantConfig(w_granularity="per_channel"))
    with torch.no_grad():
        prepared(*_example(linears))
    return _ranges(convert(prepared), linears, static=False)


def _example(linears: Linears) -> Inputs:
    return tuple(torch.zeros(2, linear.in_features) for linear in linears.linears)


def _exported(linears: Linears) -> torch.fx.GraphModule:
    # Each by itself: a private layer of an exit gets first tokens alone.
    shapes = {"inputs": tuple({0: torch.export.Dim(f"rows_{index}", min=1)} for index in range(len(linears.linears)))}
    return export(linears, _example(linears), dynamic_shapes=shapes)


def _observe_least_and_greatest(prepared: torch.fx.GraphModule) -> None:
    """Makes "minmax" mean what it says.

    From 3.8 on, Neural Compressor's "minmax" is a moving average that moves by a hundredth per batch: the first batch
    decides, and later extremes are cut off.
    """
    for name, observer in list(prepared.named_children()):
        if type(observer).__name__ == "MovingAverageMinMaxObserver":
            plain = sys.modules[type(observer).__module__].MinMaxObserver
            setattr(
                prepared,
                name,
                plain(
                    dtype=observer.dtype,
                    qscheme=observer.qscheme,
                    quant_min=observer.quant_min,
                    quant_max=observer.quant_max,
                ),
            )


def _ranges(converted: torch.fx.GraphModule, linears: Linears, static: bool) -> list[QuantizationParameters]:
    """Reads the graph, where a layer is `linear(dequantize(quantize(input)), dequantize(quantize(weight)))`."""
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
                continue  # left in float; named below
    paths = [linears.path(index) for index in range(len(linears.linears))]
    if missing := [path for path in paths if path not in found]:
        raise QuantizationError(
            f"Neural Compressor left {len(missing)} of {len(paths)} linear layers in float, or wrote a graph that this "
            "package cannot read. Is it a version that they were tried together with (see requirements/)?"
        )
    return [found[path] for path in paths]
