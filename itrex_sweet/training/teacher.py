"""The teacher of distillation: a fine-tuned model whose logits are cached per row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_MAX_CACHED_ROWS = 2_000_000  # about 150 bytes each


class Teacher:
    """Computes the logits of a frozen model, once per different row.

    The cache key is a row's tokens without padding, so that later epochs over the same rows run no forward.

    Args:
        model: a classification model; put in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval()
        self._cache: dict[bytes, tuple[float, ...]] = {}

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Returns the logits of a batch: (rows, labels) float32, on the device of the inputs.

        Args:
            inputs: arguments of the model's forward by name, without labels.
        """
        keys = _cache_keys(inputs)
        if keys is None:
            return self._forward(inputs)
        if all(key in self._cache for key in keys):
            return torch.tensor([self._cache[key] for key in keys], device=inputs["input_ids"].device)
        logits = self._forward(inputs)
        if len(self._cache) < _MAX_CACHED_ROWS:
            self._cache.update(zip(keys, map(tuple, logits.tolist()), strict=True))
        return logits

    def _forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        device = next(value.device for value in inputs.values() if isinstance(value, torch.Tensor))
        return self.model.to(device)(**{**inputs, "return_dict": True}).logits.float()


def _cache_keys(inputs: Mapping[str, Any]) -> list[bytes] | None:
    """Returns a hash of each row's tokens, or `None` if a row has inputs that are not one integer per token."""
    tensors = {name: value for name, value in sorted(inputs.items()) if isinstance(value, torch.Tensor)}
    ids, mask = tensors.get("input_ids"), tensors.pop("attention_mask", None)
    if ids is None or any(value.shape != ids.shape or value.is_floating_point() for value in tensors.values()):
        return None
    is_token = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    if is_token.shape != ids.shape:
        return None
    columns = [value.cpu().numpy() for value in tensors.values()]
    return [
        hashlib.blake2b(b"".join(column[row][tokens].tobytes() for column in columns), digest_size=16).digest()
        for row, tokens in enumerate(is_token.cpu().numpy())
    ]
