"""PyTorch eager mode: the transformers model with fused attention (SDPA), without compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import INPUTS, PaddedEngine
from peers.huggingface import input_names, plain_model


class TorchFloat32(PaddedEngine):
    """float32, the reference for the answers of the other engines."""

    name = "torch fp32"
    packages = ("torch", "transformers")
    dtype = torch.float32

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        super().__init__(model, calibration, threads)
        self._module = plain_model(model).to(self.dtype)
        self._names = input_names(self._module)

    def arrange(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> dict[str, torch.Tensor]:
        """Returns the inputs, without a mask if nothing is padded."""
        inputs = self._tensors(ids, mask, types)
        if inputs["attention_mask"].all():
            del inputs["attention_mask"]
        return inputs

    def _tensors(self, *arrays: np.ndarray) -> dict[str, torch.Tensor]:
        named = dict(zip(INPUTS, arrays, strict=True))
        return {name: torch.from_numpy(named[name]) for name in self._names}

    @torch.inference_mode()
    def forward(self, inputs: Any) -> np.ndarray:
        """Computes logits."""
        return self._module(**inputs).logits.float().numpy()


class TorchBfloat16(TorchFloat32):
    """Weights and activations in bfloat16."""

    name = "torch bf16"
    dtype = torch.bfloat16
