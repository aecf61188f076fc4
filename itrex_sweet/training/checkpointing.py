"""Gradient checkpointing of Hugging Face layers."""

from __future__ import annotations

from torch import nn


def checkpoints(layer: nn.Module) -> bool:
    """Whether a layer is run again for its gradient."""
    return layer.training and getattr(layer, "gradient_checkpointing", False)


def checkpoints_reentrantly(layer: nn.Module) -> bool:
    """Whether that is by `torch.utils.checkpoint` with `use_reentrant=True`."""
    function = getattr(layer, "_gradient_checkpointing_func", None)
    return checkpoints(layer) and getattr(function, "keywords", {}).get("use_reentrant", True)
