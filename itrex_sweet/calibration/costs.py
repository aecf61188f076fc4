"""Cost of rows by the exit at which they leave: in milliseconds of a measured table, or in layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.criteria import is_stateful, is_switched_off
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.machine import Machine

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification


@dataclass(frozen=True)
class RowCosts:
    """Cost of each row by the exit at which it leaves, in one unit.

    Args:
        through: (rows, exits), cost of leaving at an exit if no earlier exit is probed.
        probe: (rows,), additional cost of each earlier exit that is probed.
    """

    through: np.ndarray
    probe: np.ndarray

    @classmethod
    def from_layers(cls, layers_run: Sequence[int], rows: int) -> RowCosts:
        """Counts costs in layers; probes are free."""
        return cls(np.tile(np.asarray(layers_run, dtype=np.float64), (rows, 1)), np.zeros(rows))

    def select(self, rows: np.ndarray) -> RowCosts:
        """Returns the costs of some rows."""
        return RowCosts(self.through[rows], self.probe[rows])

    def under(self, policy: Policy, leaving: np.ndarray) -> np.ndarray:
        """Returns the cost of the rows under a policy, shaped as `leaving`.

        Args:
            leaving: (..., rows) index of the exit at which each row leaves.
        """
        return (
            self.through[np.arange(self.through.shape[0]), leaving] + self.probe * self._probes_before(policy)[leaving]
        )

    def _probes_before(self, policy: Policy) -> np.ndarray:
        """Returns how many earlier exits are probed, (exits,) int64."""
        probed = [not is_switched_off(policy, index) for index in range(self.through.shape[1])]
        return np.concatenate([[0], np.cumsum(probed)[:-1]])


@dataclass(frozen=True)
class CostTable:
    """Measured milliseconds per row, by batch size and length.

    Args:
        batch_sizes: increasing.
        lengths: tokens per row, increasing.
        through: (exits, batch sizes, lengths) float64, milliseconds per row that leaves at an exit, no earlier exit
            probed.
        probe: (batch sizes, lengths) float64, milliseconds per row and probed exit.
        on_real_rows: (batch sizes, 2), offset in milliseconds and factor of a linear correction, fitted to rows of
            mixed lengths that leave at different exits.
        facts: machine, backend and settings of the measurement.
    """

    batch_sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    through: np.ndarray
    probe: np.ndarray
    on_real_rows: np.ndarray
    facts: Mapping[str, Any]

    def of(self, lengths: np.ndarray, batch_size: int) -> RowCosts:
        """Returns the costs of rows in milliseconds; between entries of the table, interpolated.

        Args:
            lengths: (rows,) tokens.
        """
        offset, factor = self._interpolate(self.on_real_rows, batch_size)
        through = [np.interp(lengths, self.lengths, self._interpolate(table, batch_size)) for table in self.through]
        probe = np.interp(lengths, self.lengths, self._interpolate(self.probe, batch_size))
        # The fitted correction may be negative for the shortest rows.
        return RowCosts(np.maximum(offset + factor * np.stack(through, axis=1), 0.0), factor * probe)

    def _interpolate(self, table: np.ndarray, batch_size: int) -> np.ndarray:
        """Interpolates a table (batch sizes, ...) at a batch size, linearly in its logarithm."""
        sizes = np.log(self.batch_sizes)
        position = float(np.interp(np.log(batch_size), sizes, np.arange(len(sizes))))
        low = min(int(position), max(len(sizes) - 2, 0))
        high = min(low + 1, len(sizes) - 1)
        return table[low] + (position - low) * (table[high] - table[low])

    def to_dict(self) -> dict[str, Any]:
        """Returns the artifact's record, in plain JSON types."""
        return {
            **self.facts,
            "batch_sizes": list(self.batch_sizes),
            "lengths": list(self.lengths),
            "through": np.round(self.through, 5).tolist(),
            "probe": np.round(self.probe, 5).tolist(),
            "on_real_rows": np.round(self.on_real_rows, 5).tolist(),
        }

    @classmethod
    def stored_for(cls, model: SweetModelForSequenceClassification, criterion: str) -> CostTable | None:
        """Returns the artifact's table if it is valid for this machine, backend and criterion, else `None`."""
        costs = dict(model.artifact.costs)
        if any(costs.get(name) != value for name, value in measurement_facts(model, criterion).items()):
            return None
        return cls(
            tuple(costs.pop("batch_sizes")),
            tuple(costs.pop("lengths")),
            np.array(costs.pop("through")),
            np.array(costs.pop("probe")),
            np.array(costs.pop("on_real_rows")),
            costs,
        )

    def covers(self, lengths: np.ndarray, batch_size: int) -> bool:
        """Returns true if rows of these lengths and batches of this size are within the measured range."""
        return max(lengths, default=0) <= self.lengths[-1] and self.batch_sizes[0] <= batch_size <= self.batch_sizes[-1]


def comparable_criterion(criterion: str) -> str:
    """Returns a criterion of the same cost that allows single exits to be disabled."""
    return "entropy" if is_stateful(Policy((), (1.0,), criterion)) else criterion


def measurement_facts(model: SweetModelForSequenceClassification, criterion: str) -> dict[str, Any]:
    """Returns the facts that a table is valid for."""
    machine, backend = Machine.here(), model.backend
    return {
        "processor": machine.processor,
        "usable_cores": machine.usable_cores,
        "threads": getattr(backend, "threads", machine.threads),
        "backend": backend.name,
        "isa": getattr(backend, "isa", None),
        "precision": model.artifact.precision,
        "dtype": model.computed_in,
        "criterion": comparable_criterion(criterion),
    }
