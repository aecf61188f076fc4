"""IPEX's own static INT8 quantization of a Hugging Face model, as one TorchScript graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from peers.base import INPUTS


def ipex_quantized(
    model: torch.nn.Module, calibration: Sequence[tuple[torch.Tensor, ...]], example: tuple[torch.Tensor, ...]
) -> Callable[..., Any]:
    """Quantizes a model, attention included, and traces, freezes and fuses it.

    Args:
        model: in float32.
        calibration: token ids, attention mask and optionally token types of calibration batches.
        example: the same inputs for tracing.
    """
    from intel_extension_for_pytorch.quantization import convert, default_static_qconfig_mapping, prepare

    named = dict(zip(INPUTS, example, strict=False))
    prepared = prepare(model, default_static_qconfig_mapping, example_kwarg_inputs=named, inplace=False)
    with torch.no_grad():
        for batch in calibration:
            prepared(**dict(zip(INPUTS, batch, strict=False)))
        converted = convert(prepared)
        # Traced with positional arguments, in the order of `INPUTS`.
        module = torch.jit.freeze(torch.jit.trace(converted, example, strict=False, check_trace=False))
        module(*example)
        module(*example)
    return module
