"""CTranslate2, INT8: weights per output channel, inputs per row at run time.

Its encoder removes padding before the linear layers. It has no classification head, which is computed with NumPy. On a
CPU `int8` is its only INT8 type (everything else is float32).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import Engine, padded
from peers.converted import converted
from peers.huggingface import plain_model

HEAD = "head.npz"


class CTranslate2Int8(Engine):
    """CTranslate2 with one worker of `threads` threads."""

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
        """Returns token ids and lengths as `StorageView`s, and token types as lists."""
        import ctranslate2

        ids, _, types = padded(batch)
        view = ctranslate2.StorageView.from_array
        tokens, lengths = np.ascontiguousarray(ids, np.int32), batch.lengths.astype(np.int32)
        return (
            view(tokens),
            view(lengths),
            types.tolist() if types.any() else None,
            tokens,
            lengths,
        )  # the views share their memory

    def forward(self, inputs: Any) -> np.ndarray:
        """Computes logits."""
        tokens, lengths, types = inputs[:3]
        pooled = np.asarray(self._encoder.forward_batch(tokens, lengths, types).pooler_output)
        return pooled @ self._weight + self._bias

    def _convert(self, folder: Path) -> None:
        from ctranslate2.converters import TransformersConverter

        with tempfile.TemporaryDirectory() as source:
            shutil.copytree(self.model, source, dirs_exist_ok=True)
            config = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
            # The converter reads this field, which transformers 5 no longer writes.
            config["position_embedding_type"] = "absolute"
            (Path(source) / "config.json").write_text(json.dumps(config), encoding="utf-8")
            TransformersConverter(source).convert(str(folder), quantization="int8", force=True)
        head = plain_model(self.model).classifier
        np.savez(folder / HEAD, weight=head.weight.detach().numpy(), bias=head.bias.detach().numpy())
