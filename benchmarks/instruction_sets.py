"""Times the native engine with every instruction set of this processor, beside ONNX Runtime and PyTorch.

    python benchmarks/instruction_sets.py ARTIFACT_INT8 PLAIN_MODEL --threads 1 8

All engines take turns on the same sentences of SST-2, sorted by length and tokenized before. The plain model is the one
that the peers run: PyTorch with bfloat16 autocast, and ONNX Runtime after its dynamic quantization to INT8. Writes
`benchmarks/results/instruction_sets.json`. Needs onnxruntime and onnxscript.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from record import check_idle_machine, provenance, read_task, write_result
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.native.library import ISA_VARIABLE, ISAS

TEXTS = 256
WARM_UP, REPEATS = 2, 10
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("plain")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    check_idle_machine()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            torch.set_num_threads(threads)
            engines = {**native(options.artifact, threads), **peers(options.plain, threads, Path(folder))}
            for batch_size in (32, 1):
                batches = read_batches(options.artifact, batch_size)
                rows[f"batch {batch_size}, threads {threads}"] = {
                    name: round(microseconds, 1) for name, microseconds in timed(engines, batches).items()
                }
    write_result("instruction_sets", {**provenance(), "texts": TEXTS, "microseconds per text": rows})


def read_batches(artifact: str, batch_size: int) -> list[dict[str, torch.Tensor]]:
    """Returns padded batches of sentences of like length."""
    tokenizer = AutoTokenizer.from_pretrained(artifact)
    texts = sorted(read_task("sst2", "validation", TEXTS)[0], key=len)
    return [
        dict(tokenizer(texts[start : start + batch_size], padding=True, return_tensors="pt"))
        for start in range(0, TEXTS, batch_size)
    ]


def native(artifact: str, threads: int) -> dict[str, Callable]:
    """Returns the engine at full depth and with the stored policy, for each instruction set that is available."""
    engines: dict[str, Callable] = {}
    for isa in ISAS:
        os.environ[ISA_VARIABLE] = isa
        try:
            model = SweetModelForSequenceClassification.from_pretrained(artifact, backend="native", threads=threads)
        except BackendUnavailable as error:
            print(f"{isa}: {error}")
            continue
        engines[f"{isa}, full depth"] = lambda batch, model=model: model(**batch, threshold=1.0)
        engines[f"{isa}, stored policy"] = lambda batch, model=model: model(**batch)
    os.environ.pop(ISA_VARIABLE, None)
    return engines


def peers(folder: str, threads: int, work: Path) -> dict[str, Callable]:
    """Returns PyTorch and ONNX Runtime on the plain model."""
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    quantized = work / "int8.onnx"
    if not quantized.is_file():
        example = {name: torch.ones(2, 8, dtype=torch.int64) for name in INPUTS}
        axes = {name: {0: "rows", 1: "tokens"} for name in INPUTS}
        exported = str(work / "float32.onnx")
        torch.onnx.export(
            Logits(plain), tuple(example.values()), exported, input_names=INPUTS, dynamic_axes=axes, dynamo=False
        )
        quantize_dynamic(exported, quantized, weight_type=QuantType.QInt8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])

    @torch.inference_mode()
    def bfloat16(batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain(**batch)

    return {
        "PyTorch bfloat16": bfloat16,
        "ONNX Runtime INT8": lambda batch: session.run(None, {name: batch[name].numpy() for name in INPUTS}),
    }


class Logits(torch.nn.Module):
    """A model with positional inputs and plain logits, as the exporter needs."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(INPUTS, inputs, strict=True))).logits


def timed(engines: dict[str, Callable], batches: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the median microseconds per text of each engine, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for repeat in range(WARM_UP + REPEATS):
        for name, run in engines.items():
            start = time.perf_counter()
            for batch in batches:
                run(batch)
            if repeat >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e6 * statistics.median(each) / TEXTS for name, each in seconds.items()}


if __name__ == "__main__":
    main()
