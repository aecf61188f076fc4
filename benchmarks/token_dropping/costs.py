"""Cost of rows under a schedule: in token-layers, or in measured milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.runtime.ragged import TokenBatch
from token_dropping.schedules import Schedule

LONGEST = 384  # tokens


@dataclass(frozen=True)
class LayerTimes:
    """Milliseconds per row of the native engine in INT8, by length.

    Args:
        lengths: (lengths,) tokens.
        first: (lengths,), embeddings and the probe of the first exit.
        layer: (lengths,), one layer for every token.
        probe: (lengths,), each further probe.
    """

    lengths: np.ndarray
    first: np.ndarray
    layer: np.ndarray
    probe: np.ndarray

    def to_dict(self) -> dict[str, list[float]]:
        """Returns the table in plain JSON types."""
        return {name: np.round(getattr(self, name), 5).tolist() for name in ("lengths", "first", "layer", "probe")}

    @classmethod
    def from_dict(cls, stored: dict[str, list[float]]) -> LayerTimes:
        """Reads a table."""
        return cls(**{name: np.array(values) for name, values in stored.items()})


def measured_times(folder: Any, threads: int, batch_sizes: tuple[int, ...] = (1, 32)) -> dict[str, LayerTimes]:
    """Measures rows of equal length on the native engine, for each batch size (a string)."""
    model = SweetModelForSequenceClassification.from_pretrained(folder, backend="native", threads=threads)
    random = np.random.default_rng(0)
    lengths = [*random.integers(6, LONGEST, 64).tolist(), LONGEST]
    rows = TokenBatch.from_rows([random.integers(1000, 20000, length).tolist() for length in lengths])
    table = measure_costs(model, rows, batch_sizes, "max_probability")
    exits = model.exits
    found = {}
    for place, size in enumerate(table.batch_sizes):
        first, last = table.through[0, place], table.through[-1, place]
        found[str(size)] = LayerTimes(
            np.array(table.lengths), first, (last - first) / (exits[-1] - exits[0]), table.probe[place]
        )
    return found


def token_layers(schedule: Schedule, lengths: np.ndarray, exits: tuple[int, ...]) -> RowCosts:
    """Counts tokens of the layers that are run in full, per row and exit. An exit's own layer is a probe, and free."""
    kept = _kept(schedule, lengths, exits[-1])
    through = np.stack([kept[:, : exit_ - 1].sum(1) for exit_ in exits], axis=1)
    return RowCosts(through.astype(np.float64), np.zeros(len(lengths)))


def milliseconds(schedule: Schedule, lengths: np.ndarray, exits: tuple[int, ...], times: LayerTimes) -> RowCosts:
    """Adds up milliseconds of the layers at the lengths that the schedule leaves. Choosing, copying and merging tokens
    is free.
    """
    layers = np.interp(_kept(schedule, lengths, exits[-1]), times.lengths, times.layer)
    first = np.interp(lengths, times.lengths, times.first)
    through = np.stack([first + layers[:, : exit_ - 1].sum(1) for exit_ in exits], axis=1)
    return RowCosts(through, np.interp(lengths, times.lengths, times.probe))


def _kept(schedule: Schedule, lengths: np.ndarray, depth: int) -> np.ndarray:
    """Returns the tokens of each row in each layer that is run in full, (rows, depth - 1)."""
    unique, inverse = np.unique(lengths, return_inverse=True)
    table = np.array([[schedule.kept(layer, int(length)) for layer in range(1, depth)] for length in unique])
    return table[inverse]
