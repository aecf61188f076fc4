"""The Hugging Face model that the engines convert or run."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging

from peers.base import INPUTS


def plain_model(folder: Path, attention: str = "sdpa") -> torch.nn.Module:
    """Loads the model in float32, without its exit heads.

    Args:
        folder: folder of the model.
        attention: `"sdpa"` where the model supports it, or `"eager"` for converters, with separate matrix products.
    """
    config = AutoConfig.from_pretrained(folder)
    if not MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]._supports_sdpa:
        attention = "eager"
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation=attention)
    finally:
        logging.set_verbosity(verbosity)
    return model.float().eval()


def input_names(model: torch.nn.Module) -> list[str]:
    """Returns those of `INPUTS` that a model reads: some read no token types."""
    parameters = inspect.signature(model.forward).parameters
    return [name for name in INPUTS if name in parameters]


def example_inputs(model: torch.nn.Module, rows: int = 2, columns: int = 16) -> dict[str, torch.Tensor]:
    """Returns inputs for tracing, with one padded row, in the order of `input_names`."""
    ids = torch.randint(1000, 2000, (rows, columns), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[-1, columns // 2 :] = 0
    inputs = dict(zip(INPUTS, (ids, mask, torch.zeros_like(ids)), strict=True))
    return {name: inputs[name] for name in input_names(model)}
