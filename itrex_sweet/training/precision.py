"""The type of the weights in training: float32, whatever the checkpoint was stored in."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from itrex_sweet.training.peft_models import underlying_model

logger = logging.getLogger(__name__)

_HALF = (torch.float16, torch.bfloat16)


def half_type_of(model: nn.Module) -> torch.dtype | None:
    """The half-precision type among a model's weights, if there is one.

    `None` too for a model that a library quantized, whose types are that library's affair.
    """
    if getattr(underlying_model(model), "quantization_method", None) is not None:
        return None
    return next((parameter.dtype for parameter in model.parameters() if parameter.dtype in _HALF), None)


def to_float32(model: nn.Module) -> None:
    """Turns weights and buffers to float32 in place, and says so in the model's config; an optimizer that holds them
    stays valid.
    """
    model.float()
    mark_float32(underlying_model(model).config)


def mark_float32(config: Any) -> None:
    """Writes the type into a Hugging Face config, by which transformers 5 chooses the type it loads a model in."""
    for name in ("dtype", "torch_dtype"):  # of transformers 5, and of 4
        if getattr(config, name, None) is not None:
            setattr(config, name, torch.float32)


def train_in_float32(model: nn.Module) -> None:
    """Turns a half-precision model to float32 in place, with a warning."""
    half = half_type_of(model)
    if half is None:
        return
    to_float32(model)
    logger.warning(
        "The model's weights were %s, as transformers 5 loads a checkpoint that was stored so; they are trained in "
        "float32. For a faster forward use TrainingArguments(bf16=True); SweetCallback(allow_half=True) trains the "
        "half-precision weights themselves.",
        str(half).removeprefix("torch."),
    )
