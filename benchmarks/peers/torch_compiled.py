"""PyTorch compiled by Inductor to C++, weights and activations in bfloat16, weights frozen, one graph for all shapes.

Not in the default engines, since compilation takes minutes. It needs a C++ compiler.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from itrex_sweet.runtime.ragged import TokenBatch
from peers.torch_eager import TorchBfloat16


class TorchCompiled(TorchBfloat16):
    """Compiled with dynamic rows and columns, so that new shapes need no compilation."""

    name = "torch.compile bf16"

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        super().__init__(model, calibration, threads)
        torch._inductor.config.freezing = True
        self._module = torch.compile(self._module, dynamic=True)

    def arrange(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> dict[str, torch.Tensor]:
        """Returns the inputs, always with a mask, so that there is one graph."""
        return self._tensors(ids, mask, types)

    @torch.no_grad()
    def forward(self, inputs: Any) -> np.ndarray:
        """Computes logits under `no_grad`, which freezing needs."""
        return self._module(**inputs).logits.float().numpy()
