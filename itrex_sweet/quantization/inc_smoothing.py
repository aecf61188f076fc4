"""SmoothQuant factors (arXiv 2211.10438, equation 4), computed by Neural Compressor, with or without IPEX.

Its `SmoothQuantConfig` is not used: it needs IPEX, and computes the factors from the example inputs only but the
ranges from all rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import neural_compressor.torch.quantization  # noqa: F401 -- must select its implementation before the stub exists
import torch

from itrex_sweet.quantization.inc_linears import Inputs, Linears

_IPEX = "intel_extension_for_pytorch"


@contextmanager
def _stub_ipex() -> Iterator[None]:
    """Provides an empty IPEX module: Neural Compressor's SmoothQuant imports IPEX, but does not use it here."""
    if _IPEX in sys.modules:
        yield
        return
    sys.modules[_IPEX] = ModuleType(_IPEX)
    sys.modules[_IPEX].__version__ = "0"
    try:
        yield
    finally:
        del sys.modules[_IPEX]


with _stub_ipex():
    from neural_compressor.torch.algorithms.smooth_quant.utility import Calibration, cal_scale


def smoothing_factors(linears: Linears, inputs: Iterable[Inputs], alpha: float) -> list[torch.Tensor]:
    """Returns the factors (in,) by which each layer's input is multiplied and the columns of its weight are divided.

    Args:
        linears: the layers, before smoothing.
        inputs: of all layers, batch by batch.
        alpha: migration strength, from 0, no smoothing of activations, to 1.
    """

    def run(module: torch.nn.Module) -> None:
        for batch in inputs:
            module(*batch)

    minimum, maximum = Calibration(linears, q_func=run).calibrate(calib_iter=0, op_types=[torch.nn.Linear])
    factors = []
    for index, linear in enumerate(linears.linears):
        path = linears.path(index)
        absolute_max = torch.maximum(minimum[path].abs(), maximum[path].abs())
        factors.append(1.0 / cal_scale(absolute_max, [linear.weight], alpha))
    return factors
