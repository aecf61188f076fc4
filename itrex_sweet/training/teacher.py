"""A fine-tuned model that exits learn from, asked about every row once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_REMEMBERED_ROWS = 2_000_000  # some 150 bytes each


class Teacher:
    """Answers with the logits of a model that nothing trains.

    It remembers them by what a row holds, padding aside, so that later epochs over the same rows cost no forward.

    Args:
        model: a classification model; put in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval()
        self._said: dict[bytes, tuple[float, ...]] = {}

    @torch.no_grad()
    def logits(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """What the model says of a batch: (rows, labels) float32, on the device of the inputs.

        Args:
            inputs: arguments of the model's forward by name, without labels.
        """
        keys = _keys(inputs)
        if keys is None:
            return self._ask(inputs)
        if all(key in self._said for key in keys):
            return torch.tensor([self._said[key] for key in keys], device=inputs["input_ids"].device)
        said = self._ask(inputs)
        if len(self._said) < _REMEMBERED_ROWS:
            self._said.update(zip(keys, map(tuple, said.tolist()), strict=True))
        return said

    def _ask(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        device = next(value.device for value in inputs.values() if isinstance(value, torch.Tensor))
        return self.model.to(device)(**{**inputs, "return_dict": True}).logits.float()


def _keys(inputs: Mapping[str, Any]) -> list[bytes] | None:
    """A digest of each row's tokens; `None` where a row is more than its integers."""
    tensors = {name: value for name, value in sorted(inputs.items()) if isinstance(value, torch.Tensor)}
    ids, mask = tensors.get("input_ids"), tensors.pop("attention_mask", None)
    if ids is None or any(value.shape != ids.shape or value.is_floating_point() for value in tensors.values()):
        return None
    kept = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    if kept.shape != ids.shape:
        return None
    columns = [value.cpu().numpy() for value in tensors.values()]
    return [
        hashlib.blake2b(b"".join(column[row][there].tobytes() for column in columns), digest_size=16).digest()
        for row, there in enumerate(kept.cpu().numpy())
    ]
