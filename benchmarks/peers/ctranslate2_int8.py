"""CTranslate2, INT8: weights per output channel, inputs per row at run time.

Its encoder drops padding by itself before the linear layers. It has no classification head: the head's few products
are done with NumPy. On a CPU `int8` is its only INT8 type (what is not INT8 is float32).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import Engine, padded
from peers.converted import converted
from peers.huggingface import plain_model

HEAD = "head.npz"


class CTranslate2Int8(Engine):
    """One worker, `threads` threads within it."""

    name = "CTranslate2 INT8"
    packages = ("ctranslate2",)

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        import ctranslate2

        super().__init__(model, calibration, threads)
        folder = converted(f"ctranslate2 {ctranslate2.__version__}", model, None, self._convert)
        self._encoder = ctranslate2.Encoder(
            str(folder), device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1
        )
        head = np.load(folder / HEAD)
        self._weight, self._bias = head["weight"].T.copy(), head["bias"]

    def inputs(self, batch: TokenBatch) -> Any:
        """Token ids and lengths as its own arrays, and token types as lists, as its interface wants them."""
        import ctranslate2

        ids, _, types = padded(batch)
        view = ctranslate2.StorageView.from_array
        tokens, lengths = np.ascontiguousarray(ids, np.int32), batch.lengths.astype(np.int32)
        return view(tokens), view(lengths), types.tolist() if types.any() else None, tokens, lengths  # views borrow

    def forward(self, given: Any) -> np.ndarray:
        """Logits."""
        tokens, lengths, types = given[:3]
        pooled = np.asarray(self._encoder.forward_batch(tokens, lengths, types).pooler_output)
        return pooled @ self._weight + self._bias

    def _convert(self, folder: Path) -> None:
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(self.model)).convert(str(folder), quantization="int8", force=True)
        head = plain_model(self.model).classifier
        np.savez(folder / HEAD, weight=head.weight.detach().numpy(), bias=head.bias.detach().numpy())
