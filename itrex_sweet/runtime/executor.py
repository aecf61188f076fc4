"""The early-exit loop, the same for every backend: probe, decide, answer, drop the answered, go on with the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.config import Policy
from itrex_sweet.criteria import apart
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.anytime import answer_until
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.on_the_way import OnTheWay, WaitingRows, at_exit
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.shutdown import pause_at_exit

DEFAULT_BATCH_SIZE = 32


class Executor:
    """Runs packed rows through a backend, letting each leave at the first exit that is confident enough.

    Args:
        backend: does the arithmetic.
        policy: decides, unless a call brings its own.
        batch_size: rows per batch, and how many survivors of earlier batches are gathered at an exit before
            the next segment runs for them (refill).
    """

    def __init__(self, backend: Backend, policy: Policy, batch_size: int = DEFAULT_BATCH_SIZE):
        self.backend = backend
        self.policy = policy
        self.batch_size = whole_number("batch_size", batch_size, least=1)

    @property
    def num_exits(self) -> int:
        """Exits of the artifact."""
        return len(self.backend.artifact.exits)

    def run(
        self,
        batch: TokenBatch,
        policy: Policy | None = None,
        batch_size: int | None = None,
        deadline: float | None = None,
    ) -> Answers:
        """Answers every row once, in the caller's order.

        Rows are taken in order of length, so that those computed together are alike; no answer depends on it.

        Args:
            batch: any number of rows; none is fine.
            policy: instead of the executor's.
            batch_size: instead of the executor's, in rows.
            deadline: as `time.perf_counter` counts, in seconds: when it is passed, rows are answered with the best
                exit they have reached (`runtime.anytime`).
        """
        policy, size = policy or self.policy, self._size(batch_size)
        if 0 < len(batch) <= size and deadline is None:
            return self._run_one(batch, policy)
        order = np.argsort(batch.lengths, kind="stable")
        places = [order[start : start + size] for start in range(0, len(order), size)]
        batches = ((part, batch.select(part)) for part in places)
        if deadline is not None:
            return answer_until(deadline, self.backend, policy, batches, len(batch), size)
        none = Answers.none(self.backend.num_labels)
        answers = Answers.joined([none, *self.stream((part for _, part in batches), policy, size)])
        return dataclasses.replace(answers, rows=order[answers.rows]).in_order()

    def _run_one(self, batch: TokenBatch, policy: Policy) -> Answers:
        """One batch through all exits: nobody has to wait for other rows."""
        if (answered := self.backend.answer(batch, policy)) is not None:
            return Answers(np.arange(len(batch)), *answered)
        parts = []
        on_way = OnTheWay(np.arange(len(batch)), self.backend.embed(batch))
        for exit_index in range(self.num_exits):
            answers, on_way = at_exit(self.backend, policy, exit_index, on_way)
            if answers is not None:
                parts.append(answers)
            if not len(on_way):
                break
            on_way = on_way.advance(self.backend, exit_index)
        return parts[0] if len(parts) == 1 else Answers.joined(parts).in_order()

    def stream(
        self, batches: Iterable[TokenBatch], policy: Policy | None = None, refill: int | None = None
    ) -> Iterator[Answers]:
        """Answers rows as they leave, numbered over all batches from 0; every row comes exactly once.

        Closing the iterator early cancels the rows not yet answered; nothing of them stays behind.

        Args:
            batches: taken one at a time.
            policy: instead of the executor's.
            refill: survivors gathered at an exit before the next segment runs; 1 runs each batch through at
                once. The executor's batch size if absent.
        """
        policy = policy or self.policy
        refill = self._size(refill)
        waiting = [WaitingRows(self.backend) for _ in range(self.num_exits - 1)]
        taken = 0
        for batch in batches:
            pause_at_exit()
            rows = np.arange(taken, taken + len(batch), dtype=np.int64)
            taken += len(batch)
            if len(batch):
                yield from self._pass_exit(0, OnTheWay(rows, self.backend.embed(batch)), policy, waiting)
            yield from self._drain(waiting, refill, refill, policy)
        yield from self._drain(waiting, 1, refill, policy)

    def logits_at_every_exit(self, batch: TokenBatch, batch_size: int | None = None) -> np.ndarray:
        """Logits of every exit for every row, none leaving early: (rows, exits, labels) float32."""
        return apart(self.outputs_at_every_exit(batch, batch_size), self.backend.num_labels)[0]

    def outputs_at_every_exit(self, batch: TokenBatch, batch_size: int | None = None) -> np.ndarray:
        """All that every exit says of every row, as `Backend.probe` gives it: (rows, exits, outputs) float32."""
        size = self._size(batch_size)
        outputs = np.empty((len(batch), self.num_exits, self.backend.num_outputs), dtype=np.float32)
        order = np.argsort(batch.lengths, kind="stable")
        for start in range(0, len(order), size):
            pause_at_exit()
            rows = order[start : start + size]
            hidden = self.backend.embed(batch.select(rows))
            for exit_index in range(self.num_exits):
                outputs[rows, exit_index] = self.backend.probe(exit_index, hidden)
                if exit_index + 1 < self.num_exits:
                    hidden = self.backend.advance(exit_index, hidden)
        return outputs

    def _size(self, batch_size: int | None) -> int:
        return self.batch_size if batch_size is None else whole_number("batch_size", batch_size, least=1)

    def _drain(self, waiting: list[WaitingRows], least: int, count: int, policy: Policy) -> Iterator[Answers]:
        """Runs segments, `count` rows at a time, while at least `least` rows wait before one; shallow ones first."""
        for exit_index, queue in enumerate(waiting):
            while len(queue) >= least:
                on_way = queue.take(count).advance(self.backend, exit_index)
                yield from self._pass_exit(exit_index + 1, on_way, policy, waiting)

    def _pass_exit(
        self, exit_index: int, on_way: OnTheWay, policy: Policy, waiting: list[WaitingRows]
    ) -> Iterator[Answers]:
        """Who is confident is answered, the others wait for the next segment."""
        answers, on_way = at_exit(self.backend, policy, exit_index, on_way)
        if len(on_way):
            waiting[exit_index].put(on_way)
        if answers is not None:
            yield answers
