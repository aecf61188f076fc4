"""The early-exit loop, the same for every backend: probe, decide, answer, drop the answered, go on with the rest."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.runtime.backends.base import Backend, Hidden
from itrex_sweet.runtime.ragged import TokenBatch

DEFAULT_BATCH_SIZE = 32


@dataclass(frozen=True)
class Answers:
    """Rows answered, each at one exit.

    Args:
        rows: (rows,) int64, the caller's numbering.
        logits: (rows, labels) float32, of the exit that answered.
        exit_index: (rows,) int64, place of that exit among the exits, from 0.
        confidence: (rows,) float32, by the policy's criterion.
    """

    rows: np.ndarray
    logits: np.ndarray
    exit_index: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


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
        self.batch_size = batch_size

    @property
    def num_exits(self) -> int:
        """Exits of the artifact."""
        return len(self.backend.artifact.exits)

    def run(self, batch: TokenBatch, policy: Policy | None = None, batch_size: int | None = None) -> Answers:
        """Answers every row once, in the caller's order.

        Rows are taken in order of length, so that those computed together are alike; no answer depends on it.

        Args:
            batch: any number of rows; none is fine.
            policy: instead of the executor's.
            batch_size: instead of the executor's, in rows.
        """
        size = batch_size or self.batch_size
        if 0 < len(batch) <= size:
            return self._run_one(batch, policy or self.policy)
        order = np.argsort(batch.lengths, kind="stable")
        batches = (batch.select(order[start : start + size]) for start in range(0, len(order), size))
        answers = _joined([_none(self.backend.num_labels), *self.stream(batches, policy, size)])
        return _in_order(dataclasses.replace(answers, rows=order[answers.rows]))

    def _run_one(self, batch: TokenBatch, policy: Policy) -> Answers:
        """One batch through all exits: nobody has to wait for other rows."""
        if (answered := self.backend.answer(batch, policy)) is not None:
            return Answers(np.arange(len(batch)), *answered)
        parts = []
        on_way = OnTheWay(np.arange(len(batch)), self.backend.embed(batch))
        for exit_index in range(self.num_exits):
            answers, on_way = self._at_exit(exit_index, on_way, policy)
            if answers is not None:
                parts.append(answers)
            if not len(on_way):
                break
            on_way = self._advance(exit_index, on_way)
        return parts[0] if len(parts) == 1 else _in_order(_joined(parts))

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
        refill = refill or self.batch_size
        waiting = [_WaitingRows(self.backend) for _ in range(self.num_exits - 1)]
        taken = 0
        for batch in batches:
            rows = np.arange(taken, taken + len(batch), dtype=np.int64)
            taken += len(batch)
            if len(batch):
                yield from self._pass_exit(0, OnTheWay(rows, self.backend.embed(batch)), policy, waiting)
            yield from self._drain(waiting, refill, refill, policy)
        yield from self._drain(waiting, 1, refill, policy)

    def logits_at_every_exit(self, batch: TokenBatch, batch_size: int | None = None) -> np.ndarray:
        """Logits of every exit for every row, none leaving early: (rows, exits, labels) float32."""
        size = batch_size or self.batch_size
        logits = np.empty((len(batch), self.num_exits, self.backend.num_labels), dtype=np.float32)
        order = np.argsort(batch.lengths, kind="stable")
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            hidden = self.backend.embed(batch.select(rows))
            for exit_index in range(self.num_exits):
                logits[rows, exit_index] = self.backend.probe(exit_index, hidden)
                if exit_index + 1 < self.num_exits:
                    hidden = self.backend.advance(exit_index, hidden)
        return logits

    def _drain(self, waiting: list[_WaitingRows], least: int, count: int, policy: Policy) -> Iterator[Answers]:
        """Runs segments, `count` rows at a time, while at least `least` rows wait before one; shallow ones first."""
        for exit_index, queue in enumerate(waiting):
            while len(queue) >= least:
                on_way = self._advance(exit_index, queue.take(count))
                yield from self._pass_exit(exit_index + 1, on_way, policy, waiting)

    def _pass_exit(
        self, exit_index: int, on_way: OnTheWay, policy: Policy, waiting: list[_WaitingRows]
    ) -> Iterator[Answers]:
        """Who is confident is answered, the others wait for the next segment."""
        answers, on_way = self._at_exit(exit_index, on_way, policy)
        if len(on_way):
            waiting[exit_index].put(on_way)
        if answers is not None:
            yield answers

    def _at_exit(self, exit_index: int, on_way: OnTheWay, policy: Policy) -> tuple[Answers | None, OnTheWay]:
        """Probes an exit: who is answered there, if anyone, and who goes on."""
        logits = self.backend.probe(exit_index, on_way.hidden)
        confidences, memory = self.backend.confidence(policy, exit_index, logits, on_way.memory)
        on_way = dataclasses.replace(on_way, memory=memory)
        leaving = criteria.may_leave(policy, exit_index, confidences)
        count = int(np.count_nonzero(leaving))
        if count == 0:
            return None, on_way
        exits = np.full(count, exit_index, dtype=np.int64)
        if count == len(on_way):
            return Answers(on_way.rows, logits, exits, confidences), OnTheWay(on_way.rows[:0], on_way.hidden)
        answers = Answers(on_way.rows[leaving], logits[leaving], exits, confidences[leaving])
        return answers, on_way.select(np.flatnonzero(~leaving))

    def _advance(self, exit_index: int, on_way: OnTheWay) -> OnTheWay:
        return dataclasses.replace(on_way, hidden=self.backend.advance(exit_index, on_way.hidden))


@dataclass(frozen=True)
class OnTheWay:
    """Rows that are not answered yet.

    Args:
        rows: (rows,) int64, the caller's numbering.
        hidden: their states.
        memory: what the policy's criterion remembers of them.
    """

    rows: np.ndarray
    hidden: Hidden
    memory: criteria.Memory = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: np.ndarray) -> OnTheWay:
        """The rows at these places, in that order."""
        memory = None if self.memory is None else self.memory[places]
        return OnTheWay(self.rows[places], self.hidden.select(places), memory)


class _WaitingRows:
    """Survivors of several batches at one exit, first come, first served."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._parts: deque[OnTheWay] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def put(self, on_way: OnTheWay) -> None:
        self._parts.append(on_way)

    def take(self, count: int) -> OnTheWay:
        """The first `count` rows, or all there are."""
        taken: list[OnTheWay] = []
        while self._parts and count > 0:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part.select(np.arange(count, len(part))))
                part = part.select(np.arange(count))
            count -= len(part)
            taken.append(part)
        rows = np.concatenate([part.rows for part in taken])
        memories = [part.memory for part in taken if part.memory is not None]
        memory = np.concatenate(memories) if memories else None
        return OnTheWay(rows, self._backend.merge([part.hidden for part in taken]), memory)


def _none(labels: int) -> Answers:
    no_rows = np.zeros(0, dtype=np.int64)
    return Answers(no_rows, np.zeros((0, labels), np.float32), no_rows, np.zeros(0, np.float32))


def _in_order(answers: Answers) -> Answers:
    """Sorted by the caller's numbering."""
    order = np.argsort(answers.rows, kind="stable")
    return Answers(answers.rows[order], answers.logits[order], answers.exit_index[order], answers.confidence[order])


def _joined(parts: list[Answers]) -> Answers:
    return Answers(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.exit_index for part in parts]),
        np.concatenate([part.confidence for part in parts]),
    )
