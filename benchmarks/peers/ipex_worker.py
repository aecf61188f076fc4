"""Worker process for IPEX INT8 in a separate environment: `python -m peers.ipex_worker`.

Messages on standard input and output are pickles preceded by their length in 8 bytes. A request is `(method,
arguments)`; the answer is a value, or `{"error": ...}` with the text of an exception. Times are measured here, without
the pipe.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import time
from typing import Any, BinaryIO


def send(stream: BinaryIO, message: Any) -> None:
    """Writes a message."""
    body = pickle.dumps(message, protocol=4)
    stream.write(struct.pack("<Q", len(body)) + body)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Reads a message; `None` at the end."""
    head = stream.read(8)
    return pickle.loads(stream.read(struct.unpack("<Q", head)[0])) if len(head) == 8 else None


class Worker:
    """Holds a quantized model and its loaded batches."""

    def __init__(self) -> None:
        self._module: Any = None
        self._loaded: dict[str, list[Any]] = {}

    def versions(self) -> dict[str, str]:
        """Returns the versions of the packages."""
        from importlib import metadata

        return {name: metadata.version(name) for name in ("intel-extension-for-pytorch", "torch", "transformers")}

    def build(self, folder: str, calibration: list[Any], threads: int) -> None:
        """Quantizes and fuses a model."""
        import intel_extension_for_pytorch  # noqa: F401
        import torch

        from peers.huggingface import plain_model
        from peers.ipex_static import ipex_quantized

        torch.set_num_threads(threads)  # before packing, which depends on the number of threads
        tensors = [tuple(map(torch.from_numpy, batch)) for batch in calibration]
        self._module = ipex_quantized(plain_model(folder), tensors, tensors[-1])

    def load(self, key: str, batches: list[Any]) -> None:
        """Stores batches and runs them twice, which compiles and fuses their shapes."""
        import torch

        self._loaded[key] = [tuple(map(torch.from_numpy, batch)) for batch in batches]
        self.answers(key)
        self.answers(key)

    def run(self, key: str) -> list[float]:
        """Runs the batches once, and returns seconds per batch."""
        import torch

        seconds = []
        with torch.inference_mode():
            for batch in self._loaded[key]:
                start = time.perf_counter()
                self._module(*batch)
                seconds.append(time.perf_counter() - start)
        return seconds

    def answers(self, key: str) -> list[Any]:
        """Returns logits per batch."""
        import torch

        with torch.inference_mode():
            outputs = [self._module(*batch) for batch in self._loaded[key]]
        return [(value["logits"] if isinstance(value, dict) else value[0]).float().numpy() for value in outputs]


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries goes to standard error
    worker = Worker()
    while (request := receive(requests)) is not None:
        method, arguments = request
        try:
            send(answers, getattr(worker, method)(*arguments))
        except Exception as error:
            send(answers, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
