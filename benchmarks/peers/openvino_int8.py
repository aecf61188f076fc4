"""OpenVINO, static INT8 by NNCF's post-training quantization for transformers.

Ranges come from the calibration rows, with `model_type=TRANSFORMER` (asymmetric inputs, SmoothQuant, some operations in
float). Float operations run in the precision that the CPU plugin selects (bfloat16 if the hardware has it). Shapes are
dynamic. For every workload the fastest of these configurations is selected by trial runs: the latency hint (one stream,
all threads) or the throughput hint (one stream per thread, concurrent requests, a single batch split); padding to the
longest row, or to a multiple.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import MeasuredSeconds

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import PaddedEngine, padded
from peers.converted import converted
from peers.huggingface import example_inputs, plain_model

FILE = "model.xml"
LATENCY, THROUGHPUT = "LATENCY", "THROUGHPUT"
MULTIPLES = (1, 8, 16)


class OpenVinoInt8(PaddedEngine):
    """OpenVINO, compiled with both hints, one of which is selected per workload."""

    name = "OpenVINO INT8"
    packages = ("openvino", "nncf")

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        import openvino

        super().__init__(model, calibration, threads)
        self.folder = converted(f"openvino {openvino.__version__}", model, calibration, self._convert)
        core = openvino.Core()
        read = core.read_model(self.folder / FILE)
        streams = {LATENCY: 1, THROUGHPUT: threads}
        self._compiled = {
            hint: core.compile_model(
                read, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": count}
            )
            for hint, count in streams.items()
        }
        self._request = self._compiled[LATENCY].create_infer_request()
        self._queue = openvino.AsyncInferQueue(self._compiled[THROUGHPUT], threads)
        self._collecting: Any = None  # a queue whose results are kept
        self._hints: dict[str, str] = {}

    def load(self, key: str, batches: Sequence[TokenBatch]) -> dict[str, Any]:
        """Selects the fastest hint and multiple by trial runs; single rows use the latency hint."""
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

    def run(self, key: str) -> MeasuredSeconds:
        """Runs the batches once, and returns seconds per batch, or of the whole run with concurrent requests."""
        if self._hints[key] == LATENCY:
            return super().run(key)
        start = time.perf_counter()
        for inputs in self._loaded[key]:
            self._queue.start_async(self._arguments(inputs))
        self._queue.wait_all()
        return MeasuredSeconds([time.perf_counter() - start])

    def arrange(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> Any:
        """Returns token ids, attention mask and token types."""
        return ids, mask, types

    def forward(self, inputs: Any) -> np.ndarray:
        """Computes logits."""
        return next(iter(self._request.infer(self._arguments(inputs), share_inputs=True).values()))

    def forward_concurrently(self, batches: Iterable[Any]) -> list[np.ndarray]:
        """Computes the logits of batches, as `arrange` returns them, on all streams while the next ones are made."""
        import openvino

        if self._collecting is None:
            self._collecting = openvino.AsyncInferQueue(self._compiled[THROUGHPUT], self.threads)
        logits: dict[int, np.ndarray] = {}

        def collect(request: Any, place: int) -> None:
            logits[place] = request.get_output_tensor(0).data.copy()

        self._collecting.set_callback(collect)
        for place, inputs in enumerate(batches):
            self._collecting.start_async(self._arguments(inputs), place)
        self._collecting.wait_all()
        return [logits[place] for place in range(len(logits))]

    def _arguments(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the inputs that the model has: some read no token types."""
        return list(inputs)[: len(self._compiled[LATENCY].inputs)]

    def _pieces(self, batch: TokenBatch, hint: str, batches: int) -> list[TokenBatch]:
        """Splits a batch over the streams if there are fewer batches than streams."""
        if hint == LATENCY or batches >= self.threads:
            return [batch]
        return [batch.select(rows) for rows in np.array_split(np.arange(len(batch)), self.threads) if len(rows)]

    def _convert(self, folder: Path) -> None:
        import nncf
        import openvino

        plain = plain_model(self.model, "eager")
        model = openvino.convert_model(plain, example_input=example_inputs(plain))
        rows = [self.calibration.select(np.array([row])) for row in range(len(self.calibration))]
        quantized = nncf.quantize(
            model,
            nncf.Dataset([padded(row)[: len(model.inputs)] for row in rows]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
        )
        openvino.save_model(quantized, folder / FILE)
