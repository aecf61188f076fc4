"""Neural Compressor with IPEX: scales are read from the configuration of the converted model.

Import this module only after IPEX: Neural Compressor selects its implementation by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from neural_compressor.common.utils import CpuInfo
from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare

from itrex_sweet.errors import QuantizationError
from itrex_sweet.quantization.inc_linears import Inputs, Linears
from itrex_sweet.quantization.inc_parameters import QuantizationParameters


def observe_static(linears: Linears, inputs: Iterable[Inputs]) -> list[QuantizationParameters]:
    """Returns weight scales per output channel, and scale and zero point of each input by its minimum and maximum.

    Writes `nc_workspace` into the working directory, which must not be shared.
    """
    # On processors without VNNI, Neural Compressor observes 7 bits for kernels whose products saturate. The range would
    # depend on the machine, and the engines here compute 8 bits or refuse.
    CpuInfo()._vnni = True
    example = tuple(torch.zeros(2, linear.in_features) for linear in linears.linears)
    prepared = prepare(linears, StaticQuantConfig(act_sym=False, act_algo="minmax"), example_inputs=example)
    with torch.no_grad():
        for batch in inputs:
            prepared(*batch)
    found = dict(_parse_configuration(convert(prepared).tune_cfg))
    paths = [linears.path(index) for index in range(len(linears.linears))]
    if missing := [path for path in paths if path not in found]:
        raise QuantizationError(f"Neural Compressor left {len(missing)} of {len(paths)} linear layers in float.")
    return [found[path] for path in paths]


def _parse_configuration(configuration: dict[str, Any]) -> Iterator[tuple[str, QuantizationParameters]]:
    """Yields path and parameters of each quantized layer in IPEX's configuration."""
    for module in configuration.values():
        for operation in module.get("q_op_infos", {}).values():
            states, weight = operation["input_tensor_infos"][0], operation["weight_tensor_infos"][0]
            if (states["inf_dtype"], weight["inf_dtype"]) == ("torch.quint8", "torch.qint8"):
                scales = torch.tensor(weight["scale"], dtype=torch.float32)
                yield operation["fqn"], QuantizationParameters(scales, states["scale"][0], states["zero_point"][0])
