"""The early-exit loop, the same for every backend: probe an exit, drop the rows that leave, run the next segment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.criteria import split_outputs
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.dispatch import BreadthFirst
from itrex_sweet.runtime.in_flight import InFlightRows, WaitingRows, at_exit
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.scheduler import DEFAULT_BATCH_SIZE, Scheduler
from itrex_sweet.runtime.shutdown import pause_at_exit


class Executor:
    """Runs packed rows through a backend; each row leaves at the first exit whose confidence exceeds its threshold.

    Args:
        backend: runs the model.
        policy: default policy of calls.
        batch_size: rows per batch, and rows that are collected at an exit before the next segment runs (refill).
    """

    def __init__(self, backend: Backend, policy: Policy, batch_size: int = DEFAULT_BATCH_SIZE):
        self.backend = backend
        self.policy = policy
        self.batch_size = whole_number("batch_size", batch_size, minimum=1)

    @property
    def num_exits(self) -> int:
        """Number of exits."""
        return len(self.backend.artifact.exits)

    def run(
        self,
        batch: TokenBatch,
        policy: Policy | None = None,
        batch_size: int | None = None,
        deadline: float | None = None,
    ) -> Answers:
        """Answers every row, in the given order.

        Rows are batched by length; the answers do not depend on it.

        Args:
            batch: any number of rows, also none.
            policy: replaces the executor's policy.
            batch_size: replaces the executor's batch size.
            deadline: time of `time.perf_counter`, in seconds, after which rows are answered by the deepest exit that
                they have reached. The first exit is computed for every row, and a running segment is finished.
        """
        policy, size = self._for_task(policy or self.policy), self._size(batch_size)
        if 0 < len(batch) <= size and deadline is None:
            return self._run_one(batch, policy)
        return self._run_all(batch, Request(policy, deadline), size)

    def _run_all(self, batch: TokenBatch, request: Request, size: int) -> Answers:
        """Runs the scheduler's loop in this thread; its answers equal those of `_run_one`."""
        tokens = max(int(batch.cu_seqlens[-1]), 1)
        dispatch = BreadthFirst(size, exit_by_exit=request.deadline is not None)
        scheduler = Scheduler(self.backend, request.policy, size, tokens, max(len(batch), 1), dispatch=dispatch)
        future = scheduler.submit(batch, request)
        while scheduler.step():
            pause_at_exit()
        answers = future.result(0)
        answers.request = None
        return answers

    def _run_one(self, batch: TokenBatch, policy: Policy) -> Answers:
        """Runs one batch through all exits, without queues."""
        if (answered := self.backend.answer(batch, policy)) is not None:
            return answered
        parts = []
        in_flight = InFlightRows(np.arange(len(batch)), self.backend.embed(batch))
        for exit_index in range(self.num_exits):
            answers, in_flight = at_exit(self.backend, policy, exit_index, in_flight)
            if answers is not None:
                parts.append(answers)
            if not len(in_flight):
                break
            in_flight = in_flight.advance(self.backend, exit_index)
        return parts[0] if len(parts) == 1 else Answers.joined(parts).in_order()

    def stream(
        self, batches: Iterable[TokenBatch], policy: Policy | None = None, refill: int | None = None
    ) -> Iterator[Answers]:
        """Yields answers as rows leave. Row indices count over all batches from 0, and each occurs once.

        Closing the iterator cancels the rows that have no answer yet.

        Args:
            batches: read one at a time.
            policy: replaces the executor's policy.
            refill: rows that are collected at an exit before the next segment runs; 1 runs every batch through at
                once. By default the executor's batch size.
        """
        policy = self._for_task(policy or self.policy)
        refill = self._size(refill)
        waiting = [WaitingRows(self.backend) for _ in range(self.num_exits - 1)]
        taken = 0
        for batch in batches:
            pause_at_exit()
            rows = np.arange(taken, taken + len(batch), dtype=np.int64)
            taken += len(batch)
            if len(batch):
                yield from self._pass_exit(0, InFlightRows(rows, self.backend.embed(batch)), policy, waiting)
            yield from self._drain(waiting, refill, refill, policy)
        yield from self._drain(waiting, 1, refill, policy)

    def logits_at_every_exit(self, batch: TokenBatch, batch_size: int | None = None) -> np.ndarray:
        """Computes the logits of every exit for every row, without early exit: (rows, exits, labels) float32."""
        return split_outputs(self.outputs_at_every_exit(batch, batch_size), self.backend.num_labels)[0]

    def outputs_at_every_exit(self, batch: TokenBatch, batch_size: int | None = None) -> np.ndarray:
        """Computes the outputs of every exit for every row, as `Backend.probe` returns them: (rows, exits, outputs)
        float32."""
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

    def _for_task(self, policy: Policy) -> Policy:
        """Returns a policy that names no task for the task of the model."""
        task = self.backend.task.name
        return policy if policy.task == task else policy.for_task(task, self.backend.num_labels)

    def _size(self, batch_size: int | None) -> int:
        return self.batch_size if batch_size is None else whole_number("batch_size", batch_size, minimum=1)

    def _drain(self, waiting: list[WaitingRows], minimum: int, count: int, policy: Policy) -> Iterator[Answers]:
        """Runs segments, shallow ones first, for `count` rows at a time while at least `minimum` rows wait."""
        for exit_index, queue in enumerate(waiting):
            while len(queue) >= minimum:
                in_flight = queue.take(count).advance(self.backend, exit_index)
                yield from self._pass_exit(exit_index + 1, in_flight, policy, waiting)

    def _pass_exit(
        self, exit_index: int, in_flight: InFlightRows, policy: Policy, waiting: list[WaitingRows]
    ) -> Iterator[Answers]:
        """Yields the answers of the rows that leave, and queues the others for the next segment."""
        answers, in_flight = at_exit(self.backend, policy, exit_index, in_flight)
        if len(in_flight):
            waiting[exit_index].put(in_flight)
        if answers is not None:
            yield answers
