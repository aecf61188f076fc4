"""The interface of engines: rows are loaded once, then run and timed by the engine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import MeasuredSeconds

from itrex_sweet.runtime.ragged import TokenBatch

INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # names of what `padded` returns


class Engine(ABC):
    """An engine with a model, which runs all layers in full.

    Args:
        model: folder of the Hugging Face model in float32.
        calibration: calibration rows, for engines with static scales.
        threads: number of threads.
    """

    name: str
    packages: tuple[str, ...] = ()  # their versions are recorded

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        self.model, self.calibration, self.threads = model, calibration, threads
        self._loaded: dict[str, list[Any]] = {}

    def load(self, key: str, batches: Sequence[TokenBatch]) -> dict[str, Any]:
        """Prepares batches under a name, padding included, so that `run` times the engine only.

        Returns:
            The configuration chosen for them and the milliseconds of all that were tried; empty without a choice.
        """
        self._loaded[key] = [self.inputs(batch) for batch in batches]
        return {}

    def run(self, key: str) -> MeasuredSeconds:
        """Runs the loaded batches once, and returns seconds per batch."""
        seconds = MeasuredSeconds()
        for inputs in self._loaded[key]:
            start = time.perf_counter()
            self.forward(inputs)
            seconds.append(time.perf_counter() - start)
        return seconds

    def answers(self, key: str) -> np.ndarray:
        """Returns the logits of the loaded rows, in their order: (rows, labels) float32."""
        return np.concatenate([np.asarray(self.forward(inputs), dtype=np.float32) for inputs in self._loaded[key]])

    def versions(self) -> dict[str, str]:
        """Returns the versions of its packages."""
        from importlib import metadata

        return {name: metadata.version(name) for name in self.packages}

    def close(self) -> None:
        """Frees the loaded batches."""
        self._loaded.clear()

    @abstractmethod
    def inputs(self, batch: TokenBatch) -> Any:
        """Converts a batch to the inputs of `forward`."""

    @abstractmethod
    def forward(self, inputs: Any) -> Any:
        """Computes logits: (rows, labels)."""


class PaddedEngine(Engine):
    """An engine whose inputs are padded arrays, so that any tokenizer can feed it."""

    def inputs(self, batch: TokenBatch) -> Any:
        return self.arrange(*padded(batch))

    @abstractmethod
    def arrange(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> Any:
        """Converts token ids, attention mask and token types, (rows, columns) int64, to the inputs of `forward`."""


def padded(batch: TokenBatch, multiple: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns token ids, attention mask and token types, (rows, columns) int64, padded with zeros on the right.

    Args:
        batch: the rows.
        multiple: the longest row's length is rounded up to a multiple of this.
    """
    columns = -(-int(batch.lengths.max()) // multiple) * multiple
    is_token = np.arange(columns) < batch.lengths[:, None]
    ids = np.zeros(is_token.shape, dtype=np.int64)
    types = np.zeros_like(ids)
    ids[is_token], types[is_token] = batch.input_ids, batch.token_type_ids
    return ids, is_token.astype(np.int64), types
