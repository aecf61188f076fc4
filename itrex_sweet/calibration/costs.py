"""What rows cost by where they leave: milliseconds, measured on the machine and backend that run them, or layers."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.config import Policy
from itrex_sweet.criteria import apart, confidence_at_every_exit, is_switched_off, leaving_exit, looks_back
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.evaluation.timing import milliseconds_per_row, sample_rows
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.machine import Machine
from itrex_sweet.runtime.ragged import TokenBatch

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification

BATCH_SIZES = (1, 8, 32)
_ROUNDS_AT_LEAST, _ROUNDS_AT_MOST, _SECONDS_PER_CELL = 3, 25, 0.4
_ROWS_COMPARED, _REPEATS, _WARM_UPS = 384, 3, 50
_UNMET = float(np.nextafter(np.float32(1), np.float32(0)))  # a threshold that is probed for
_FLAT = 1e6  # a temperature that makes every row unsure


@dataclass(frozen=True)
class RowCosts:
    """What each of some rows costs, by where it leaves, in one unit.

    Args:
        through: (rows, exits) to leave at an exit when no exit before it is probed.
        probe: (rows,) each exit before it that is probed.
    """

    through: np.ndarray
    probe: np.ndarray

    @classmethod
    def of_layers(cls, layers_run: Sequence[int], rows: int) -> RowCosts:
        """In layers, of which a probe is none."""
        return cls(np.tile(np.asarray(layers_run, dtype=np.float64), (rows, 1)), np.zeros(rows))

    def select(self, rows: np.ndarray) -> RowCosts:
        """Of some of the rows."""
        return RowCosts(self.through[rows], self.probe[rows])

    def under(self, policy: Policy, leaving: np.ndarray) -> np.ndarray:
        """(rows,) what they cost under a policy.

        Args:
            leaving: (rows,) place of the exit, from 0, at which each leaves under it.
        """
        probed = [not is_switched_off(policy, place) for place in range(self.through.shape[1])]
        before = np.concatenate([[0], np.cumsum(probed)[:-1]])
        return self.through[np.arange(len(leaving)), leaving] + self.probe * before[leaving]


@dataclass(frozen=True)
class CostTable:
    """Milliseconds per row, by rows run together and their length.

    Args:
        batch_sizes: rows run together, rising.
        lengths: tokens per row, rising.
        through: (exits, batch sizes, lengths) float64, milliseconds per row that leaves at an exit, none before it
            probed.
        probe: (batch sizes, lengths) float64, milliseconds per row and probed exit.
        on_real_rows: (batch sizes, 2): milliseconds that a row of real traffic takes more than this table says, and a
            factor before that: fitted to rows of mixed lengths that leave at different exits.
        facts: where it was measured, and how.
    """

    batch_sizes: tuple[int, ...]
    lengths: tuple[int, ...]
    through: np.ndarray
    probe: np.ndarray
    on_real_rows: np.ndarray
    facts: Mapping[str, Any]

    def of(self, lengths: np.ndarray, batch_size: int) -> RowCosts:
        """What rows of these lengths cost when so many run together, in milliseconds; between entries, interpolated.

        Args:
            lengths: (rows,) tokens.
        """
        more, factor = self._between(self.on_real_rows, batch_size)
        through = [np.interp(lengths, self.lengths, self._between(table, batch_size)) for table in self.through]
        probe = np.interp(lengths, self.lengths, self._between(self.probe, batch_size))
        # What is fitted may be below 0 for the shortest rows.
        return RowCosts(np.maximum(more + factor * np.stack(through, axis=1), 0.0), factor * probe)

    def _between(self, table: np.ndarray, batch_size: int) -> np.ndarray:
        """Row of a table (batch sizes, ...) for a batch size, linear in its logarithm."""
        sizes = np.log(self.batch_sizes)
        place = float(np.interp(np.log(batch_size), sizes, np.arange(len(sizes))))
        low = min(int(place), max(len(sizes) - 2, 0))
        high = min(low + 1, len(sizes) - 1)
        return table[low] + (place - low) * (table[high] - table[low])

    def to_dict(self) -> dict[str, Any]:
        """What an artifact records, in plain JSON types."""
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
        """The table that the artifact holds, if it was measured here, on this backend and for such a criterion."""
        costs = dict(model.artifact.costs)
        here = _facts(model, criterion)
        if any(costs.get(name) != value for name, value in here.items()):
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
        """Whether rows of these lengths and batches of this size lie within what was measured."""
        return max(lengths, default=0) <= self.lengths[-1] and self.batch_sizes[0] <= batch_size <= self.batch_sizes[-1]


def cost_table(
    model: SweetModelForSequenceClassification, batch: TokenBatch, batch_size: int, criterion: str
) -> CostTable:
    """The table that the artifact holds, or where it does not fit what runs here, one that is measured now: seconds.

    Args:
        model: on the backend that will run it.
        batch: rows as they come, for their lengths and to compare with.
        batch_size: that has to be in it, besides `BATCH_SIZES`.
        criterion: of the policies it is for; some are decided inside the engine, others cost some microseconds more.
    """
    stored = CostTable.stored_for(model, criterion)
    if stored is not None and stored.covers(batch.lengths, batch_size):
        return stored
    return measure_costs(model, batch, sorted({*BATCH_SIZES, batch_size}), criterion)


def measure_costs(
    model: SweetModelForSequenceClassification, batch: TokenBatch, batch_sizes: Sequence[int], criterion: str
) -> CostTable:
    """Times the executor on rows of equal lengths that all leave at one exit, for every batch size, length and exit.

    All tasks of an entry take turns. Each is timed on its second call in a row, as it runs in a service that is busy.
    """
    lengths = _grid(batch.lengths)
    _warm_up(model.executor, batch)
    cells = list(itertools.product(batch_sizes, lengths))
    measured = [_cell(model.executor, *cell, _plain(criterion)) for cell in progress(cells, "costs", unit="entry")]
    shape = (len(batch_sizes), len(lengths))
    through = np.array([cell[0] for cell in measured]).T.reshape(-1, *shape)
    probe = np.array([cell[1] for cell in measured]).reshape(shape)
    facts = {
        **_facts(model, criterion),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    none = np.tile([0.0, 1.0], (len(batch_sizes), 1))
    table = CostTable(tuple(batch_sizes), lengths, through, probe, none, facts)
    fitted = _fitted(model.executor, sample_rows(batch, _ROWS_COMPARED), table)
    return dataclasses.replace(table, on_real_rows=fitted)


def _warm_up(executor: Executor, batch: TokenBatch) -> None:
    """Runs for a moment: a process that has just begun is slower."""
    part, start = batch.select(np.arange(min(len(batch), executor.batch_size))), time.perf_counter()
    for _ in range(_WARM_UPS):
        executor.run(part, Policy((1.0,) * (executor.num_exits - 1), (1.0,) * executor.num_exits))
        if time.perf_counter() - start > _SECONDS_PER_CELL:
            break


def _cell(executor: Executor, batch_size: int, length: int, criterion: str) -> tuple[np.ndarray, float]:
    """Milliseconds per row to each exit, and of a probe."""
    exits = executor.num_exits
    ids = np.random.default_rng(0).integers(0, executor.backend.vocabulary, (batch_size, length))
    batch = TokenBatch.from_rows(ids.tolist(), uncounted_token=executor.backend.uncounted_token)
    policies = [Policy((1.0,) * (exits - 1), (1.0,) * exits, criterion, deepest=place) for place in range(exits)]
    policies.append(Policy((_UNMET,) * (exits - 1), (_FLAT,) * exits, criterion))
    seconds: list[list[float]] = []
    start = time.perf_counter()
    while len(seconds) < _ROUNDS_AT_MOST:
        seconds.append([_second_call(executor, batch, policy, batch_size) for policy in policies])
        if len(seconds) > _ROUNDS_AT_LEAST and time.perf_counter() - start > _SECONDS_PER_CELL:
            break
    medians = 1000.0 * np.median(seconds[1:], axis=0) / batch_size
    # All probes are alike: one layer for one token, and a head.
    return medians[:-1], max(medians[-1] - medians[-2], 0.0) / max(exits - 1, 1)


def _second_call(executor: Executor, batch: TokenBatch, policy: Policy, batch_size: int) -> float:
    executor.run(batch, policy, batch_size)
    start = time.perf_counter()
    executor.run(batch, policy, batch_size)
    return time.perf_counter() - start


def _fitted(executor: Executor, batch: TokenBatch, table: CostTable) -> np.ndarray:
    """Per batch size: what real rows take beyond the table, by least squares of the relative error of three policies:
    everyone leaves at the first exit, half of those who are there leave at each, nobody leaves before the last.
    """
    policies = _three_mixes(executor, batch, str(table.facts["criterion"]))
    single = [batch.select(np.array([row])) for row in range(len(batch))]

    def run(size: int, policy: Policy) -> None:
        for part in single if size == 1 else [batch]:
            executor.run(part, policy, size)

    pairs = list(itertools.product(table.batch_sizes, policies))
    taken = milliseconds_per_row({pair: functools.partial(run, *pair) for pair in pairs}, len(batch), _REPEATS)
    fitted = []
    for size in table.batch_sizes:
        costs = table.of(batch.lengths, size)
        said = np.array([costs.under(policy, leaving).mean() for policy, leaving in policies.items()])
        measured = np.array([taken[size, policy] for policy in policies])
        matrix = np.stack([np.ones(len(said)), said], axis=1) / measured[:, None]
        fitted.append(np.linalg.lstsq(matrix, np.ones(len(said)), rcond=None)[0])
    return np.array(fitted)


def _three_mixes(executor: Executor, batch: TokenBatch, criterion: str) -> dict[Policy, np.ndarray]:
    """Policies, and where each row leaves under them."""
    exits = executor.num_exits
    logits, certainties = apart(executor.outputs_at_every_exit(batch), executor.backend.num_labels)
    policy = Policy((1.0,) * (exits - 1), (1.0,) * exits, criterion)
    confidences = confidence_at_every_exit(policy, logits, certainties, executor.backend.confidence)
    halves, here = [], np.ones(len(batch), dtype=bool)
    for column in confidences.T[:-1]:
        halves.append(float(np.clip(np.median(column[here]), 0.0, 1.0)) if here.any() else 0.0)
        here &= ~(column > halves[-1])
    mixes = [policy.with_threshold(0.0), policy.with_threshold(halves), policy]
    return {mix: leaving_exit(mix, confidences) for mix in mixes}


def _grid(lengths: np.ndarray) -> tuple[int, ...]:
    """Powers of two around the rows' lengths, the longest length in place of the last."""
    longest = int(max(lengths, default=1))
    powers = [1 << power for power in range(longest.bit_length()) if 1 << power < longest]
    return (*[length for length in powers if 2 * length > min(lengths)], longest)


def _plain(criterion: str) -> str:
    """A criterion that costs as much and can be switched off at single exits."""
    return "entropy" if looks_back(Policy((), (1.0,), criterion)) else criterion


def _facts(model: SweetModelForSequenceClassification, criterion: str) -> dict[str, Any]:
    """What a table depends on."""
    machine, backend = Machine.here(), model.backend
    return {
        "processor": machine.processor,
        "usable_cores": machine.usable_cores,
        "threads": getattr(backend, "threads", machine.threads),
        "backend": backend.name,
        "isa": getattr(backend, "isa", None),
        "precision": model.artifact.precision,
        "dtype": model.computed_in,
        "criterion": _plain(criterion),
    }
