"""IPEX's own static INT8 of a Hugging Face model, as one TorchScript: imported where IPEX is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def ipex_quantized(
    model: torch.nn.Module, calibration: Sequence[tuple[torch.Tensor, ...]], example: tuple[torch.Tensor, ...]
) -> Callable[..., Any]:
    """Every layer in full, attention in INT8 too, traced, frozen and fused: its best.

    Args:
        model: in float32.
        calibration: token ids, attention mask and, if the model is to read them, token types of batches whose ranges
            are observed.
        example: the same of the batch to trace with.
    """
    from intel_extension_for_pytorch.quantization import convert, default_static_qconfig_mapping, prepare

    names = ("input_ids", "attention_mask", "token_type_ids")
    named = dict(zip(names, example, strict=False))
    prepared = prepare(model, default_static_qconfig_mapping, example_kwarg_inputs=named, inplace=False)
    with torch.no_grad():
        for batch in calibration:
            prepared(**dict(zip(names, batch, strict=False)))
        converted = convert(prepared)
        # Traced by position, in the order of the model's arguments, which is that of `names`.
        module = torch.jit.freeze(torch.jit.trace(converted, example, strict=False, check_trace=False))
        module(*example)
        module(*example)
    return module
