"""SmoothQuant's factors (arXiv 2211.10438, equation 4), computed by Neural Compressor, with or without IPEX.

Not by its `SmoothQuantConfig`: that needs IPEX, and takes the factors from the example inputs alone but the ranges
from all rows, which do not fit one another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

import neural_compressor.torch.quantization  # noqa: F401 -- chooses what it registers before the stand-in is there
import torch

from itrex_sweet.quantization.inc_linears import Inputs, Linears

_IPEX = "intel_extension_for_pytorch"


@contextmanager
def _importable_without_ipex() -> Iterator[None]:
    """Neural Compressor's file of SmoothQuant imports IPEX at its head, for functions that are not used here."""
    if _IPEX in sys.modules:
        yield
        return
    sys.modules[_IPEX] = ModuleType(_IPEX)
    sys.modules[_IPEX].__version__ = "0"
    try:
        yield
    finally:
        del sys.modules[_IPEX]


with _importable_without_ipex():
    from neural_compressor.torch.algorithms.smooth_quant.utility import Calibration, cal_scale


def smoothing_factors(linears: Linears, inputs: Iterable[Inputs], alpha: float) -> list[torch.Tensor]:
    """By what each layer's input is to be multiplied, (in,), and the columns of its weight divided.

    Args:
        linears: the layers, not smoothed.
        inputs: of all layers, batch by batch.
        alpha: 0 leaves the work to the inputs, 1 to the weights.
    """

    def run(module: torch.nn.Module) -> None:
        for batch in inputs:
            module(*batch)

    least, greatest = Calibration(linears, q_func=run).calibrate(calib_iter=0, op_types=[torch.nn.Linear])
    factors = []
    for index, linear in enumerate(linears.linears):
        path = linears.path(index)
        strength = torch.maximum(least[path].abs(), greatest[path].abs())
        factors.append(1.0 / cal_scale(strength, [linear.weight], alpha))
    return factors
