"""Puts another loss into what a Hugging Face model returns."""

from __future__ import annotations

from typing import Any

import torch


def with_loss(output: Any, loss: torch.Tensor, has_one: bool) -> Any:
    """The same output with this loss.

    Args:
        output: a tuple, or a `ModelOutput`, which is changed where it has a loss.
        has_one: whether it has a loss already; in a tuple that comes first.
    """
    if isinstance(output, tuple):
        return (loss, *output[int(has_one) :])
    if has_one:
        output.loss = loss
        return output
    return type(output)(**{**output, "loss": loss})
