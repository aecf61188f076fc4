"""Finds the labels, the token ids and the lengths of rows among the arguments of a Hugging Face model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from itrex_sweet.errors import InputError, UnknownTokenError, UnsupportedModelError

_TOKENS, _MASK, _VECTORS = "input_ids", "attention_mask", "inputs_embeds"


def position_of_labels(model: nn.Module, base: nn.Module) -> int:
    """Place of `labels` among the arguments of a model's forward, from 0.

    Args:
        model: as it is called: a PEFT model, if it is one.
        base: the classification model.

    Raises:
        UnsupportedModelError: it takes none.
    """
    for module in (model, base):  # a PeftModel without a task type hands everything on to the base model
        names = list(inspect.signature(type(module).forward).parameters)[1:]  # without self
        if "labels" in names:
            return names.index("labels")
    raise UnsupportedModelError(f"{type(base).__name__}.forward takes no labels: exits need a classification model.")


def main_input(model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """The main input of a model, as transformers names it, such as token ids; `None` where it is missing."""
    value = inputs.get(getattr(model, "main_input_name", _TOKENS))
    return value.detach() if isinstance(value, torch.Tensor) else None


def checked_ids(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    """Refuses token ids that the model has no embedding for.

    Raises:
        UnknownTokenError: it names the first row with one.
    """
    ids = inputs.get(_TOKENS)
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.numel() == 0:
        return
    known = embeddings_of(model)
    wrong = (ids < 0) | (ids >= known)
    if wrong.any():
        rows = tuple(wrong.any(dim=-1).nonzero().flatten().tolist())
        raise UnknownTokenError(
            f"token id {ids[wrong][0].item()} in row {rows[0]}: the model has embeddings for ids 0 … {known - 1}. The "
            "tokenizer is another model's, or has tokens added: model.resize_token_embeddings(len(tokenizer)).",
            rows=rows,
        )


def embeddings_of(model: nn.Module) -> int:
    """The number of token ids that a model has an embedding for."""
    return model.get_input_embeddings().weight.shape[0]


def mask_of_first_token(inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Mask of the tokens that each row's first token attends to: (rows, length), 0 for the others; `None` for all.

    Args:
        inputs: arguments of the model's forward by name.

    Raises:
        InputError: a mask that is neither (rows, length) nor (rows, length, length).
    """
    mask = inputs.get(_MASK)
    if mask is None:
        return None
    if not isinstance(mask, torch.Tensor) or mask.dim() not in (2, 3):
        shape = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise InputError(
            f"attention_mask of shape {shape}: exits read masks of shape (rows, length) or (rows, length, length)."
        )
    return mask if mask.dim() == 2 else mask[:, 0]


def longest_row(model: nn.Module, inputs: Mapping[str, Any]) -> int:
    """Tokens of the longest row of a batch, padding aside.

    Padding is what the attention mask leaves out, else the padding token.

    Args:
        inputs: arguments of the model's forward by name: `input_ids` or `inputs_embeds`, (rows, length, ...).
    """
    mask, ids = inputs.get(_MASK), inputs.get(_TOKENS)
    padding = getattr(model.config, "pad_token_id", None)
    if isinstance(mask, torch.Tensor) and mask.dim() == 2:
        kept = mask != 0
    elif isinstance(ids, torch.Tensor) and padding is not None:
        kept = ids != padding
    else:
        tokens = ids if isinstance(ids, torch.Tensor) else inputs.get(_VECTORS)
        return tokens.shape[1] if isinstance(tokens, torch.Tensor) and tokens.dim() > 1 else 0
    return int(kept.sum(dim=-1).max()) if kept.numel() else 0
