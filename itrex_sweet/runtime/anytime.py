"""Anytime inference: answers each row by the deepest exit that it has reached when the deadline passes."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.in_flight import InFlightRows, WaitingRows, outputs_at
from itrex_sweet.runtime.ragged import TokenBatch


def answer_until(
    deadline: float,
    backend: Backend,
    policy: Policy,
    batches: Iterable[tuple[np.ndarray, TokenBatch]],
    num_rows: int,
    batch_size: int,
) -> Answers:
    """Computes the first exit for every row, then the next segments, exit by exit, until the deadline.

    A running segment is finished, so the call ends at most one segment of one batch and its probe after the deadline.
    The first exit is computed for every row even after the deadline. Every exit is probed, also one that the policy has
    switched off, because its outputs are the answer if the deadline passes there.

    Args:
        deadline: time of `time.perf_counter`, in seconds.
        backend: runs the model.
        policy: decides which rows leave before the deadline.
        batches: (rows,) int64 row indices, and the rows.
        num_rows: number of rows in all batches.
        batch_size: rows per run of a segment.

    Returns:
        Answers in order of the row indices, with `out_of_time`.
    """
    best = Answers(
        rows=np.arange(num_rows, dtype=np.int64),
        logits=np.zeros((num_rows, backend.num_labels), dtype=np.float32),
        exit_index=np.zeros(num_rows, dtype=np.int64),
        confidence=np.zeros(num_rows, dtype=np.float32),
        out_of_time=np.zeros(num_rows, dtype=bool),
    )

    def at_exit(exit_index: int, in_flight: InFlightRows, following: WaitingRows) -> None:
        """Stores the exit's outputs as answers, and queues the rows that do not leave."""
        outputs, in_flight = outputs_at(backend, policy, exit_index, in_flight)
        best.logits[outputs.rows], best.confidence[outputs.rows] = outputs.logits, outputs.confidence
        best.exit_index[outputs.rows] = exit_index
        staying = np.flatnonzero(~criteria.may_leave(policy, exit_index, outputs.confidence))
        if len(staying):
            following.put(in_flight.select(staying))

    waiting = [WaitingRows(backend) for _ in range(policy.last_exit_index + 1)]
    for rows, batch in batches:
        at_exit(0, InFlightRows(rows, backend.embed(batch)), waiting[0])
    for exit_index, queue in enumerate(waiting):
        while len(queue) and time.perf_counter() < deadline:
            in_flight = queue.take(batch_size).advance(backend, exit_index)
            at_exit(exit_index + 1, in_flight, waiting[exit_index + 1])
    for queue in waiting:
        best.out_of_time[queue.rows()] = True
    return best
