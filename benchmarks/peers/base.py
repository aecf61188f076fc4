"""What every engine offers the comparison: rows are loaded once, then run as often as wanted, timed by the engine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import OwnSeconds

from itrex_sweet.runtime.ragged import TokenBatch


class Engine(ABC):
    """One engine on one model, all layers in full.

    Args:
        model: folder of the Hugging Face model in float32.
        calibration: rows to observe ranges on, for engines with fixed scales.
        threads: that it may compute with.
    """

    name: str
    packages: tuple[str, ...] = ()  # whose versions are recorded

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        self.model, self.calibration, self.threads = model, calibration, threads
        self._loaded: dict[str, list[Any]] = {}

    def load(self, key: str, batches: Sequence[TokenBatch]) -> dict[str, Any]:
        """Prepares batches under a name, padding included, so that `run` times the engine alone.

        Returns:
            what was chosen for them, if there was a choice, and the milliseconds that decided it.
        """
        self._loaded[key] = [self.inputs(batch) for batch in batches]
        return {}

    def run(self, key: str) -> OwnSeconds:
        """One pass over what was loaded: seconds per batch."""
        seconds = OwnSeconds()
        for given in self._loaded[key]:
            start = time.perf_counter()
            self.forward(given)
            seconds.append(time.perf_counter() - start)
        return seconds

    def answers(self, key: str) -> np.ndarray:
        """Logits of the rows loaded, in their order: (rows, labels) float32."""
        return np.concatenate([np.asarray(self.forward(given), dtype=np.float32) for given in self._loaded[key]])

    def versions(self) -> dict[str, str]:
        """Of its packages."""
        from importlib import metadata

        return {name: metadata.version(name) for name in self.packages}

    def close(self) -> None:
        """Lets go of what it holds."""
        self._loaded.clear()

    @abstractmethod
    def inputs(self, batch: TokenBatch) -> Any:
        """A batch in the form that `forward` takes."""

    @abstractmethod
    def forward(self, given: Any) -> Any:
        """(rows, labels) logits."""


def padded(batch: TokenBatch, multiple: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, attention mask and token types, (rows, columns) int64, padded with zeros behind the rows.

    Args:
        multiple: columns are the longest row's length, rounded up to a multiple of this.
    """
    columns = -(-int(batch.lengths.max()) // multiple) * multiple
    ids = np.zeros((len(batch), columns), dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for row, (start, stop) in enumerate(zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)):
        length = stop - start
        ids[row, :length], types[row, :length] = batch.input_ids[start:stop], batch.token_type_ids[start:stop]
        mask[row, :length] = 1
    return ids, mask, types
