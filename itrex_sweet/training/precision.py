"""The data type of the weights in training: float32, for checkpoints of any type."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

from itrex_sweet.training.peft_models import unwrap_peft_model

logger = logging.getLogger(__name__)

_HALF_PRECISION = (torch.float16, torch.bfloat16)


def half_precision_dtype(model: nn.Module) -> torch.dtype | None:
    """Returns the half-precision dtype of a model's weights, or `None` if they have none.

    Returns `None` for a model that a library quantized, too: that library chooses its dtypes.
    """
    if getattr(unwrap_peft_model(model), "quantization_method", None) is not None:
        return None
    return next((parameter.dtype for parameter in model.parameters() if parameter.dtype in _HALF_PRECISION), None)


def to_float32(model: nn.Module) -> None:
    """Converts weights and buffers to float32 in place, and sets the dtype of the model's config.

    An optimizer that holds the parameters stays valid.
    """
    model.float()
    set_config_dtype_to_float32(unwrap_peft_model(model).config)


def set_config_dtype_to_float32(config: Any) -> None:
    """Sets the dtype of a Hugging Face config, which transformers 5 loads a model in."""
    name = "dtype" if hasattr(config, "dtype") else "torch_dtype"  # before transformers 4.56
    if getattr(config, name, None) is not None:
        setattr(config, name, torch.float32)


def ensure_float32(model: nn.Module) -> None:
    """Converts a half-precision model to float32 in place, with a warning."""
    half = half_precision_dtype(model)
    if half is None:
        return
    to_float32(model)
    logger.warning(
        "The model's weights were %s, as transformers 5 loads a checkpoint that was stored so; they are trained in "
        "float32. For a faster forward use TrainingArguments(bf16=True); SweetCallback(allow_half=True) trains the "
        "half-precision weights themselves.",
        str(half).removeprefix("torch."),
    )
