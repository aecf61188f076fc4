"""Answering before a deadline: every row with the best exit that was reached when time is up."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.on_the_way import OnTheWay, WaitingRows, said_at
from itrex_sweet.runtime.ragged import TokenBatch


def answer_until(
    deadline: float,
    backend: Backend,
    policy: Policy,
    batches: Iterable[tuple[np.ndarray, TokenBatch]],
    num_rows: int,
    batch_size: int,
) -> Answers:
    """Answers every row once: all of them at the first exit, then exit by exit while there is time.

    A segment that has begun is finished, so the last answers come at most one segment of one batch, and its probe,
    after the deadline. The first exit is computed for every row even if time is up before: without it there is no
    answer. Every exit on the way is probed, also one that the policy has switched off, since time may end there.

    Args:
        deadline: as `time.perf_counter` counts, in seconds.
        backend: does the arithmetic.
        policy: lets rows leave before the deadline, exactly as without one.
        batches: numbers of the rows, from 0, (rows,) int64, and the rows.
        num_rows: in all batches.
        batch_size: rows that a segment runs for together.

    Returns:
        by the rows' numbers, `out_of_time` set.
    """
    best = Answers(
        rows=np.arange(num_rows, dtype=np.int64),
        logits=np.zeros((num_rows, backend.num_labels), dtype=np.float32),
        exit_index=np.zeros(num_rows, dtype=np.int64),
        confidence=np.zeros(num_rows, dtype=np.float32),
        out_of_time=np.zeros(num_rows, dtype=bool),
    )

    def at_exit(exit_index: int, on_way: OnTheWay, following: WaitingRows) -> None:
        """Notes what the exit says of the rows; who may not leave waits for the next segment."""
        said, on_way = said_at(backend, policy, exit_index, on_way)
        best.logits[said.rows], best.confidence[said.rows] = said.logits, said.confidence
        best.exit_index[said.rows] = exit_index
        staying = np.flatnonzero(~criteria.may_leave(policy, exit_index, said.confidence))
        if len(staying):
            following.put(on_way.select(staying))

    waiting = [WaitingRows(backend) for _ in range(policy.answers_all + 1)]
    for rows, batch in batches:
        at_exit(0, OnTheWay(rows, backend.embed(batch)), waiting[0])
    for exit_index, queue in enumerate(waiting):
        while len(queue) and time.perf_counter() < deadline:
            on_way = queue.take(batch_size).advance(backend, exit_index)
            at_exit(exit_index + 1, on_way, waiting[exit_index + 1])
    for queue in waiting:
        best.out_of_time[queue.rows()] = True
    return best
