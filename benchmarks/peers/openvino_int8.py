"""OpenVINO, static INT8 by NNCF's post-training quantization for transformers.

Ranges are observed on the calibration rows, `model_type=TRANSFORMER` (asymmetric inputs, SmoothQuant, the operations
that transformers need left in float). What stays float runs in the precision that the CPU plugin prefers (bfloat16
where there is hardware for it). Shapes are dynamic. For every workload the fastest of these is taken, by trial passes:
the latency hint (one stream, all threads) or the throughput hint (one stream per thread, requests in flight at once, a
lone batch cut in pieces); columns padded to the longest row, or on to a multiple.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import OwnSeconds

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import Engine, padded
from peers.converted import converted
from peers.huggingface import example_inputs, plain_model

FILE = "model.xml"
LATENCY, THROUGHPUT = "LATENCY", "THROUGHPUT"
MULTIPLES = (1, 8, 16)


class OpenVinoInt8(Engine):
    """Both hints compiled; each workload has its own."""

    name = "OpenVINO INT8"
    packages = ("openvino", "nncf")

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        import openvino

        super().__init__(model, calibration, threads)
        folder = converted(f"openvino {openvino.__version__}", model, calibration, self._convert)
        core = openvino.Core()
        read = core.read_model(folder / FILE)
        streams = {LATENCY: 1, THROUGHPUT: threads}
        self._compiled = {
            hint: core.compile_model(
                read, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": count}
            )
            for hint, count in streams.items()
        }
        self._request = self._compiled[LATENCY].create_infer_request()
        self._queue = openvino.AsyncInferQueue(self._compiled[THROUGHPUT], threads)
        self._hints: dict[str, str] = {}

    def load(self, key: str, batches: Sequence[TokenBatch]) -> dict[str, Any]:
        """Tries hints and multiples, and keeps the fastest. One row at a time, only latency counts."""
        one_by_one = all(len(batch) == 1 for batch in batches)
        one_length = len({int(length) for batch in batches for length in batch.lengths}) == 1
        tried = {}
        for hint in (LATENCY,) if one_by_one or self.threads == 1 else (LATENCY, THROUGHPUT):
            for multiple in (1,) if one_length else MULTIPLES:
                self._hints[key] = hint
                self._loaded[key] = [
                    padded(piece, multiple) for batch in batches for piece in self._pieces(batch, hint, len(batches))
                ]
                self.run(key)
                tried[hint, multiple] = min(sum(self.run(key)) for _ in range(2)), self._loaded[key]
        best = min(tried, key=lambda choice: tried[choice][0])
        self._hints[key], self._loaded[key] = best[0], tried[best][1]
        named = {f"{hint.lower()} hint, multiples of {multiple}": value for (hint, multiple), value in tried.items()}
        return {
            "chosen": f"{best[0].lower()} hint, multiples of {best[1]}",
            "tried_milliseconds": {name: round(1000 * seconds, 2) for name, (seconds, _) in named.items()},
        }

    def run(self, key: str) -> OwnSeconds:
        """Seconds per batch, or with requests in flight at once of the whole pass."""
        if self._hints[key] == LATENCY:
            return super().run(key)
        start = time.perf_counter()
        for given in self._loaded[key]:
            self._queue.start_async(list(given))
        self._queue.wait_all()
        return OwnSeconds([time.perf_counter() - start])

    def inputs(self, batch: TokenBatch) -> Any:
        """Three arrays."""
        return padded(batch)

    def forward(self, given: Any) -> np.ndarray:
        """Logits."""
        return next(iter(self._request.infer(list(given), share_inputs=True).values()))

    def _pieces(self, batch: TokenBatch, hint: str, batches: int) -> list[TokenBatch]:
        """A batch as it is; with several streams and fewer batches than streams, cut so that all have work."""
        if hint == LATENCY or batches >= self.threads:
            return [batch]
        return [batch.select(rows) for rows in np.array_split(np.arange(len(batch)), self.threads) if len(rows)]

    def _convert(self, folder: Path) -> None:
        import nncf
        import openvino

        model = openvino.convert_model(plain_model(self.model, "eager"), example_input=example_inputs())
        rows = [self.calibration.select(np.array([row])) for row in range(len(self.calibration))]
        quantized = nncf.quantize(
            model,
            nncf.Dataset([padded(row) for row in rows]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
        )
        openvino.save_model(quantized, folder / FILE)
