"""The early-exit loop of one caller, the same for every backend: probe an exit, drop the rows that leave, run the next
segment."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.criteria import split_outputs
from itrex_sweet.defaults import DEFAULT_BATCH_SIZE
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.batching import Batcher
from itrex_sweet.runtime.dispatch import BreadthFirst
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.scheduler import Scheduler
from itrex_sweet.runtime.shutdown import pause_at_exit
from itrex_sweet.runtime.submission import StreamSubmission


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
        policy, size = self.backend.for_task(policy or self.policy), self._size(batch_size)
        if not len(batch):
            return Answers.none(self.backend.num_labels)
        if deadline is not None:
            return self._run_until(batch, Request(policy, deadline), size)
        if len(batch) <= size and (answered := self.backend.answer(batch, policy)) is not None:
            return answered
        return Answers.joined(list(self._loop([batch], policy, size, size))).in_order()

    def _run_until(self, batch: TokenBatch, request: Request, size: int) -> Answers:
        """Runs the scheduler in this thread, which answers rows at their deadline."""
        tokens, dispatch = int(batch.cu_seqlens[-1]), BreadthFirst(size, exit_by_exit=True)
        scheduler = Scheduler(self.backend, request.policy, size, tokens, len(batch), dispatch=dispatch)
        future = scheduler.submit(batch, request)
        while scheduler.step():
            pause_at_exit()
        answers = future.result(0)
        answers.request = None
        return answers

    def stream(
        self, batches: Iterable[TokenBatch], policy: Policy | None = None, refill: int | None = None
    ) -> Iterator[Answers]:
        """Yields answers as rows leave. Row indices count over all batches from 0, and each occurs once.

        Closing the iterator cancels the rows that have no answer yet.

        Args:
            batches: read one at a time, when no row of the earlier ones can run.
            policy: replaces the executor's policy.
            refill: rows that are collected at an exit before the next segment runs; 1 runs every batch through at
                once. By default the executor's batch size.
        """
        policy, refill = self.backend.for_task(policy or self.policy), self._size(refill)
        return self._loop(batches, policy, max(refill, self.batch_size), refill)

    def _loop(self, batches: Iterable[TokenBatch], policy: Policy, size: int, refill: int) -> Iterator[Answers]:
        """Runs the loop of one caller, and yields the answers of the rows that leave in each run."""
        dispatch = BreadthFirst(refill)
        batcher = Batcher(self.backend, size, None, dispatch)
        submission = StreamSubmission(Request(policy), self.backend)
        for batch in itertools.chain(batches, [None]):
            pause_at_exit()
            dispatch.expects_more = batch is not None
            if batch is not None and len(batch):
                submission.extend(batch)
                batcher.put(submission)
            for _ in batcher.run_all():
                answers = submission.take_answers()
                if answers is not None:
                    yield answers
                pause_at_exit()

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

    def _size(self, batch_size: int | None) -> int:
        return self.batch_size if batch_size is None else whole_number("batch_size", batch_size, minimum=1)
