"""IPEX, static INT8 TorchScript, in an environment of its own (`ipex_worker.py`), timed in turns with the others.

Quantized by IPEX's own defaults on the calibration rows, attention included; traced, frozen, fused by oneDNN Graph. It
compiles every shape it meets: all shapes of a workload are compiled before it is timed, which a service cannot do.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import ROOT, OwnSeconds

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import Engine, padded
from peers.ipex_worker import receive, send

CALIBRATION_BATCH = 32  # rows


class IpexInt8(Engine):
    """A process of another Python; `python` says which, before the engine is made."""

    name = "IPEX INT8"
    python: Path | None = None

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        super().__init__(model, calibration, threads)
        if self.python is None:
            raise ImportError("IPEX needs an environment of its own: --ipex-python names its Python.")
        paths = [str(ROOT / "benchmarks"), str(ROOT)]
        self._process = subprocess.Popen(
            [str(self.python), "-m", "peers.ipex_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)},
        )
        order = np.argsort(calibration.lengths, kind="stable")
        starts = range(0, len(order), CALIBRATION_BATCH)
        batches = [padded(calibration.select(order[start : start + CALIBRATION_BATCH])) for start in starts]
        self._ask("build", str(model), batches, threads)

    def load(self, key: str, batches: Sequence[TokenBatch]) -> dict[str, Any]:
        """Sends them over and compiles their shapes."""
        self._ask("load", key, [padded(batch) for batch in batches])
        return {}

    def run(self, key: str) -> OwnSeconds:
        """Seconds measured in the other process."""
        return OwnSeconds(self._ask("run", key))

    def answers(self, key: str) -> np.ndarray:
        """Logits."""
        return np.concatenate(self._ask("answers", key))

    def versions(self) -> dict[str, str]:
        """Of the other environment."""
        return self._ask("versions")

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def inputs(self, batch: TokenBatch) -> Any:
        """Not here."""
        raise NotImplementedError

    def forward(self, given: Any) -> Any:
        """Not here."""
        raise NotImplementedError

    def _ask(self, verb: str, *arguments: Any) -> Any:
        send(self._process.stdin, (verb, arguments))
        answer = receive(self._process.stdout)
        if answer is None and self._process.poll() is not None:
            raise RuntimeError(f"the IPEX process ended with status {self._process.returncode}.")
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"IPEX: {answer['error']}")
        return answer
