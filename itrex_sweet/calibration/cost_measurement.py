"""Measures the cost table of a model on this machine and backend."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from itrex_sweet.calibration.costs import CostTable, comparable_criterion, measurement_facts
from itrex_sweet.criteria import confidence_at_every_exit, leaving_exit, split_outputs
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.evaluation.timing import milliseconds_per_row, rows_within, sample_rows
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification

BATCH_SIZES = (1, 8, 32)
_MIN_ROUNDS, _MAX_ROUNDS, _SECONDS_PER_ENTRY = 3, 25, 0.4
_SLOW_CALL = 0.05  # seconds; what the caches held before such a call does not matter
_CORRECTION_ROWS, _CORRECTION_SECONDS = (64, 384), 6.0
_REPEATS, _WARM_UPS = 3, 50
_UNREACHABLE = float(np.nextafter(np.float32(1), np.float32(0)))  # a threshold below 1, so that the exit is probed
_FLATTENING = 1e6  # a temperature at which no row is confident


def cost_table(
    model: SweetModelForSequenceClassification, batch: TokenBatch, batch_size: int, criterion: str
) -> CostTable:
    """Returns the artifact's table if it is valid here; otherwise measures one, which takes seconds.

    Args:
        model: on the backend that will run it.
        batch: representative rows.
        batch_size: included in the table besides `BATCH_SIZES`.
        criterion: of the policies; criteria that the engine does not implement cost some microseconds more.
    """
    stored = CostTable.stored_for(model, criterion)
    if stored is not None and stored.covers(batch.lengths, batch_size):
        return stored
    return measure_costs(model, batch, sorted({*BATCH_SIZES, batch_size}), criterion)


def measure_costs(
    model: SweetModelForSequenceClassification, batch: TokenBatch, batch_sizes: Sequence[int], criterion: str
) -> CostTable:
    """Measures the executor on rows of equal length that all leave at one exit, for every batch size, length and exit.

    The policies of an entry are measured in turns, quick calls on their second call in a row, as under continuous load.
    Entries of slow calls have fewer rounds, and the correction of slow models fewer rows, so that the time for large
    models and long rows stays within some calls of each entry and about `_CORRECTION_SECONDS`.
    """
    lengths = _length_grid(batch.lengths, model.backend.max_tokens)
    _warm_up(model.executor, batch)
    entries = list(itertools.product(batch_sizes, lengths))
    measured = [
        _measure_entry(model.executor, *entry, comparable_criterion(criterion))
        for entry in progress(entries, "costs", unit="entry")
    ]
    shape = (len(batch_sizes), len(lengths))
    through = np.array([entry[0] for entry in measured]).T.reshape(-1, *shape)
    probe = np.array([entry[1] for entry in measured]).reshape(shape)
    facts = {
        **measurement_facts(model, criterion),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    identity = np.tile([0.0, 1.0], (len(batch_sizes), 1))
    table = CostTable(tuple(batch_sizes), lengths, through, probe, identity, facts)
    correction = _fit_correction(model.executor, sample_rows(batch, _correction_rows(batch, table)), table)
    return dataclasses.replace(table, on_real_rows=correction)


def _warm_up(executor: Executor, batch: TokenBatch) -> None:
    """Runs for up to `_SECONDS_PER_ENTRY`, since a new process is slower."""
    part, start = batch.select(np.arange(min(len(batch), executor.batch_size))), time.perf_counter()
    for _ in range(_WARM_UPS):
        executor.run(part, Policy.uniform(executor.num_exits, 1.0, executor.backend.artifact.task.name))
        if time.perf_counter() - start > _SECONDS_PER_ENTRY:
            break


def _measure_entry(executor: Executor, batch_size: int, length: int, criterion: str) -> tuple[np.ndarray, float]:
    """Returns milliseconds per row to each exit, and of a probe."""
    exits = executor.num_exits
    ids = np.random.default_rng(0).integers(0, executor.backend.vocabulary, (batch_size, length))
    batch = TokenBatch.from_rows(ids.tolist(), padding_idx=executor.backend.padding_idx)
    task = executor.backend.artifact.task
    full_depth = Policy((1.0,) * (exits - 1), (1.0,) * exits, criterion, task=task.name)
    policies = [dataclasses.replace(full_depth, max_exit_index=place) for place in range(exits)]
    temperature = _FLATTENING if task.has_temperatures else 1.0
    policies.append(
        dataclasses.replace(full_depth, thresholds=(_UNREACHABLE,) * (exits - 1), temperatures=(temperature,) * exits)
    )
    start = time.perf_counter()
    first = np.array([_call(executor, batch, policy, batch_size) for policy in policies])
    quick = first < _SLOW_CALL
    quick[-2:] = quick[-2:].all()  # their difference is the time of the probes
    seconds: list[list[float]] = []
    least = _MIN_ROUNDS if first.sum() < _SECONDS_PER_ENTRY else 1
    while len(seconds) < least or (len(seconds) < _MAX_ROUNDS and time.perf_counter() - start < _SECONDS_PER_ENTRY):
        seconds.append([
            _second_call(executor, batch, policy, batch_size) if twice else _call(executor, batch, policy, batch_size)
            for policy, twice in zip(policies, quick, strict=True)
        ])  # fmt: skip
    medians = np.median(seconds, axis=0)
    if len(seconds) < _MIN_ROUNDS:  # a median would not exclude an interruption
        medians = np.where(quick, medians, np.minimum(medians, first))
    medians *= 1000.0 / batch_size
    # All probes cost the same: one layer for one token, and a head.
    return medians[:-1], max(medians[-1] - medians[-2], 0.0) / max(exits - 1, 1)


def _call(executor: Executor, batch: TokenBatch, policy: Policy, batch_size: int) -> float:
    start = time.perf_counter()
    executor.run(batch, policy, batch_size)
    return time.perf_counter() - start


def _second_call(executor: Executor, batch: TokenBatch, policy: Policy, batch_size: int) -> float:
    executor.run(batch, policy, batch_size)
    return _call(executor, batch, policy, batch_size)


def _correction_rows(batch: TokenBatch, table: CostTable) -> int:
    """Returns how many rows the correction can use in about `_CORRECTION_SECONDS`."""
    per_row = sum(float(table.of(batch.lengths, size).through[:, -1].mean()) for size in table.batch_sizes) / 1000.0
    # Besides full depth, the policies take about half of it and almost nothing.
    return rows_within(_CORRECTION_SECONDS, 1.5 * per_row * (1 + _REPEATS), _CORRECTION_ROWS)


def _fit_correction(executor: Executor, batch: TokenBatch, table: CostTable) -> np.ndarray:
    """Fits the linear correction of each batch size to real rows, by least squares of the relative error.

    Three policies are measured: all rows leave at the first exit, half of the remaining rows leave at each exit, and no
    row leaves early.
    """
    policies = _correction_policies(executor, batch, str(table.facts["criterion"]))
    single = [batch.select(np.array([row])) for row in range(len(batch))]

    def run(size: int, policy: Policy) -> None:
        for part in single if size == 1 else [batch]:
            executor.run(part, policy, size)

    pairs = list(itertools.product(table.batch_sizes, policies))
    tasks = {pair: functools.partial(run, *pair) for pair in pairs}
    milliseconds = milliseconds_per_row(tasks, len(batch), _REPEATS)
    corrections = []
    for size in table.batch_sizes:
        costs = table.of(batch.lengths, size)
        predicted = np.array([costs.under(policy, leaving).mean() for policy, leaving in policies.items()])
        measured = np.array([milliseconds[size, policy] for policy in policies])
        matrix = np.stack([np.ones(len(predicted)), predicted], axis=1) / measured[:, None]
        corrections.append(np.linalg.lstsq(matrix, np.ones(len(predicted)), rcond=None)[0])
    return np.array(corrections)


def _correction_policies(executor: Executor, batch: TokenBatch, criterion: str) -> dict[Policy, np.ndarray]:
    """Returns policies, with the index of the exit at which each row leaves under them."""
    exits = executor.num_exits
    logits, correctness_logits = split_outputs(executor.outputs_at_every_exit(batch), executor.backend.num_labels)
    task = executor.backend.artifact.task
    policy = Policy((1.0,) * (exits - 1), (1.0,) * exits, criterion, task=task.name)
    confidences = confidence_at_every_exit(policy, logits, correctness_logits, executor.backend.confidence)
    medians, active = [], np.ones(len(batch), dtype=bool)
    for column in confidences.T[:-1]:
        medians.append(float(np.clip(np.median(column[active]), 0.0, 1.0)) if active.any() else 0.0)
        active &= ~(column > medians[-1])
    policies = [policy.with_threshold(0.0), policy.with_threshold(medians), policy]
    return {each: leaving_exit(each, confidences) for each in policies}


def _length_grid(lengths: np.ndarray, limit: int | None) -> tuple[int, ...]:
    """Returns powers of two that cover the rows' lengths, ending with the longest length, rounded up so that the table
    also covers other texts of the same kind.

    Args:
        limit: maximum length that the model accepts.
    """
    longest = int(max(lengths, default=1))
    step = max((1 << longest.bit_length()) // 4, 1)
    longest = -(-longest // step) * step
    longest = longest if limit is None else min(longest, limit)
    powers = [1 << power for power in range(longest.bit_length()) if 1 << power < longest]
    return (*[length for length in powers if 2 * length > min(lengths)], longest)
