"""Runs IPEX INT8 in an environment of its own: `python -m peers.ipex_worker`, spoken to over standard input and output.

Messages are pickles behind their length in 8 bytes. Requests are `(verb, arguments)`; the answer is a value, or an
exception's text in an `{"error": ...}`. Seconds are measured here, so that the pipe costs nobody anything.
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
    """One model."""

    def __init__(self) -> None:
        self._module: Any = None
        self._loaded: dict[str, list[Any]] = {}

    def versions(self) -> dict[str, str]:
        """Of what computes here."""
        from importlib import metadata

        return {name: metadata.version(name) for name in ("intel-extension-for-pytorch", "torch", "transformers")}

    def build(self, folder: str, calibration: list[Any], threads: int) -> None:
        """Quantizes and fuses a model."""
        import intel_extension_for_pytorch  # noqa: F401
        import torch

        from peers.huggingface import plain_model
        from peers.ipex_static import ipex_quantized

        torch.set_num_threads(threads)  # before anything is packed for a number of threads
        tensors = [tuple(map(torch.from_numpy, batch)) for batch in calibration]
        self._module = ipex_quantized(plain_model(folder), tensors, tensors[-1])

    def load(self, key: str, batches: list[Any]) -> None:
        """Keeps batches, and compiles their shapes: twice, as fusing wants."""
        import torch

        self._loaded[key] = [tuple(map(torch.from_numpy, batch)) for batch in batches]
        self.answers(key)
        self.answers(key)

    def run(self, key: str) -> list[float]:
        """Seconds per batch."""
        import torch

        seconds = []
        with torch.inference_mode():
            for given in self._loaded[key]:
                start = time.perf_counter()
                self._module(*given)
                seconds.append(time.perf_counter() - start)
        return seconds

    def answers(self, key: str) -> list[Any]:
        """Logits per batch."""
        import torch

        with torch.inference_mode():
            given = [self._module(*batch) for batch in self._loaded[key]]
        return [(value["logits"] if isinstance(value, dict) else value[0]).float().numpy() for value in given]


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to standard error
    worker = Worker()
    while (request := receive(requests)) is not None:
        verb, arguments = request
        try:
            send(answers, getattr(worker, verb)(*arguments))
        except Exception as error:
            send(answers, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
