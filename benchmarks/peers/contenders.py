"""Loads engines and batches for the comparison, and compares answers."""

from __future__ import annotations

import argparse
import gc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.runtime.ragged import TokenBatch
from peers import REFERENCE, engine_class
from peers.base import Engine
from peers.comparison import agreement

BATCH = 32


class Contenders(dict):
    """Name → function to time, and the configurations that engines chose for these batches."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: dict[str, Any] = {}


def peer_contenders(engines: dict[str, Engine], key: str, batches: list[TokenBatch]) -> Contenders:
    """Loads batches into every engine under a name."""
    contenders = Contenders()
    for name, engine in engines.items():
        if choice := engine.load(key, batches):
            contenders.choices[name] = choice
        contenders[name] = partial(engine.run, key)
    return contenders


def agreements(table: dict[str, np.ndarray]) -> dict[str, Any]:
    """Compares all answers with the reference's; empty without a reference."""
    return {name: agreement(table[REFERENCE], logits) for name, logits in table.items() if REFERENCE in table}


def load_engines(
    model: Path, calibration: TokenBatch, options: argparse.Namespace, result: dict[str, Any]
) -> dict[str, Engine]:
    """Loads the selected engines; those that fail are recorded in the result."""
    engines = {}
    for name in options.engines:
        try:
            engines[name] = engine_class(name)(model, calibration, options.threads)
        except Exception as error:  # the other engines are still measured
            result["left_out"][name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            print(f"left out: {name}: {error}", flush=True)
        else:
            result["engines"][name] = engines[name].versions()
            print(f"loaded: {name}", flush=True)
    return engines


def close(engines: dict[str, Engine]) -> None:
    """Closes the engines and frees their memory."""
    for engine in engines.values():
        engine.close()
    engines.clear()
    gc.collect()


def split_batches(rows: TokenBatch) -> dict[str, list[TokenBatch]]:
    """Splits rows into batches: one by one, in natural order, and sorted by length."""
    order = np.arange(len(rows))
    by_length = np.argsort(rows.lengths, kind="stable")

    def parts(order: np.ndarray, size: int) -> list[TokenBatch]:
        return [rows.select(order[start : start + size]) for start in range(0, len(order), size)]

    return {"one by one": parts(order, 1), "natural": parts(order, BATCH), "sorted": parts(by_length, BATCH)}


def restore_order(logits: np.ndarray, rows: TokenBatch, name: str) -> np.ndarray:
    """Restores the order of the rows for logits of batches from `split_batches`."""
    if name != "sorted":
        return logits
    back = np.empty_like(logits)
    back[np.argsort(rows.lengths, kind="stable")] = logits
    return back


def accuracy_percent(logits: np.ndarray, truth: np.ndarray) -> float:
    return round(100 * float((logits.argmax(-1) == truth).mean()), 2)


def print_medians(name: str, times: dict[str, dict[str, float]]) -> None:
    """Prints medians."""
    print(name, {key: value["median"] for key, value in times.items()}, flush=True)
