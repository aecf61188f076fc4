"""PyTorch as most people run it: transformers' model, fused attention (SDPA), no compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import Engine, padded
from peers.huggingface import plain_model


class TorchFloat32(Engine):
    """float32; what the others' answers are compared with."""

    name = "torch fp32"
    packages = ("torch", "transformers")
    dtype = torch.float32

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        super().__init__(model, calibration, threads)
        self._module = plain_model(model).to(self.dtype)

    def inputs(self, batch: TokenBatch) -> dict[str, torch.Tensor]:
        """Without a mask where nothing is padded, so that attention needs none."""
        ids, mask, types = map(torch.from_numpy, padded(batch))
        given = {"input_ids": ids, "token_type_ids": types}
        return given if mask.all() else {**given, "attention_mask": mask}

    @torch.inference_mode()
    def forward(self, given: Any) -> np.ndarray:
        """Logits."""
        return self._module(**given).logits.float().numpy()


class TorchBfloat16(TorchFloat32):
    """Weights and activations in bfloat16."""

    name = "torch bf16"
    dtype = torch.bfloat16
