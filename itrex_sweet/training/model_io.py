"""Reads the arguments of a Hugging Face model's forward, and replaces the loss in its output."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from itrex_sweet.errors import InputError, UnknownTokenError, UnsupportedModelError

_TOKENS, _MASK, _EMBEDDINGS = "input_ids", "attention_mask", "inputs_embeds"


def labels_argument_index(model: nn.Module, base: nn.Module) -> int:
    """Returns the position of `labels` among the arguments of a model's forward, from 0.

    Args:
        model: the model that is called: a PEFT model, if it is one.
        base: the classification model.

    Raises:
        UnsupportedModelError: forward has no such argument.
    """
    for module in (model, base):  # a PeftModel without a task type forwards *args and **kwargs
        names = list(inspect.signature(type(module).forward).parameters)[1:]  # without self
        if "labels" in names:
            return names.index("labels")
    raise UnsupportedModelError(f"{type(base).__name__}.forward takes no labels: exits need a classification model.")


def main_input(model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Returns the main input of a model (`main_input_name`, such as token ids), or `None` if it is missing."""
    value = inputs.get(getattr(model, "main_input_name", _TOKENS))
    return value.detach() if isinstance(value, torch.Tensor) else None


def check_token_ids(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    """Checks that the model has an embedding for every token id.

    Raises:
        UnknownTokenError: names the first row with an id out of range.
    """
    ids = inputs.get(_TOKENS)
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.numel() == 0:
        return
    size = vocabulary_size(model)
    out_of_range = (ids < 0) | (ids >= size)
    if out_of_range.any():
        rows = tuple(out_of_range.any(dim=-1).nonzero().flatten().tolist())
        raise UnknownTokenError(
            f"token id {ids[out_of_range][0].item()} in row {rows[0]}: the model has embeddings for ids "
            f"0 … {size - 1}. The tokenizer belongs to another model, or tokens were added: "
            "model.resize_token_embeddings(len(tokenizer)).",
            rows=rows,
        )


def vocabulary_size(model: nn.Module) -> int:
    """Returns the number of token ids that a model has an embedding for."""
    return model.get_input_embeddings().weight.shape[0]


def first_token_attention_mask(inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Returns the attention mask of each row's first token: (rows, length), 0 at padding; `None` without a mask.

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


def max_row_length(model: nn.Module, inputs: Mapping[str, Any]) -> int:
    """Returns the number of tokens of the longest row of a batch, without padding.

    Padding is where the attention mask is 0 or, without a mask, the padding token.

    Args:
        inputs: arguments of the model's forward by name: `input_ids` or `inputs_embeds`, (rows, length, ...).
    """
    mask, ids = inputs.get(_MASK), inputs.get(_TOKENS)
    padding = getattr(model.config, "pad_token_id", None)
    if isinstance(mask, torch.Tensor) and mask.dim() == 2:
        is_token = mask != 0
    elif isinstance(ids, torch.Tensor) and padding is not None:
        is_token = ids != padding
    else:
        tokens = ids if isinstance(ids, torch.Tensor) else inputs.get(_EMBEDDINGS)
        return tokens.shape[1] if isinstance(tokens, torch.Tensor) and tokens.dim() > 1 else 0
    return int(is_token.sum(dim=-1).max()) if is_token.numel() else 0


def replace_loss(output: Any, loss: torch.Tensor, has_loss: bool) -> Any:
    """Returns a model's output with another loss.

    Args:
        output: a tuple, or a `ModelOutput`, which is changed in place if it has a loss.
        loss: the new loss, a scalar.
        has_loss: `True` if the output has a loss, which is the first element of a tuple.
    """
    if isinstance(output, tuple):
        return (loss, *output[int(has_loss) :])
    if has_loss:
        output.loss = loss
        return output
    return type(output)(**{**output, "loss": loss})
