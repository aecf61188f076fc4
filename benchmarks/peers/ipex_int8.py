"""IPEX, static INT8 TorchScript, in a separate environment (`ipex_worker.py`).

Quantized with IPEX's defaults on the calibration rows, attention included; traced, frozen, fused by oneDNN Graph. It
compiles every input shape: all shapes of a workload are compiled before the timing, which a service cannot do.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import ROOT, MeasuredSeconds

from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import Engine, padded
from peers.ipex_worker import receive, send

CALIBRATION_BATCH = 32  # rows


class IpexInt8(Engine):
    """Client of a worker process; set `python` to the interpreter of the IPEX environment first."""

    name = "IPEX INT8"
    python: Path | None = None

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        super().__init__(model, calibration, threads)
        if self.python is None:
            raise ImportError("IPEX needs a separate environment: pass its Python with --ipex-python.")
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
        self._request("build", str(model), batches, threads)

    def load(self, key: str, batches: Sequence[TokenBatch]) -> dict[str, Any]:
        """Sends batches to the worker, which compiles their shapes."""
        self._request("load", key, [padded(batch) for batch in batches])
        return {}

    def run(self, key: str) -> MeasuredSeconds:
        """Returns the seconds measured by the worker."""
        return MeasuredSeconds(self._request("run", key))

    def answers(self, key: str) -> np.ndarray:
        """Returns logits."""
        return np.concatenate(self._request("answers", key))

    def versions(self) -> dict[str, str]:
        """Returns the versions of the worker's environment."""
        return self._request("versions")

    def close(self) -> None:
        """Stops the worker."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def inputs(self, batch: TokenBatch) -> Any:
        """Raises: not supported, the worker prepares inputs and runs the model."""
        raise NotImplementedError

    def forward(self, inputs: Any) -> Any:
        """Raises: not supported, the worker prepares inputs and runs the model."""
        raise NotImplementedError

    def _request(self, method: str, *arguments: Any) -> Any:
        send(self._process.stdin, (method, arguments))
        answer = receive(self._process.stdout)
        if answer is None and self._process.poll() is not None:
            raise RuntimeError(f"the IPEX worker exited with status {self._process.returncode}.")
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"IPEX: {answer['error']}")
        return answer
