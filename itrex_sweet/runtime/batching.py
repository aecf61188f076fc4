"""Continuous batching: the rows that wait before each segment, and the batches that are formed of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.dispatch import Dispatch
from itrex_sweet.runtime.queues import ArrivalQueue, ExitQueue
from itrex_sweet.runtime.shared_rows import SharedRows
from itrex_sweet.runtime.submission import Submission
from itrex_sweet.runtime.work import Outcome, Work

DEFAULT_BATCH_TOKENS = 4096


class Batcher:
    """Forms batches of rows that wait before the same segment. Not thread-safe.

    Args:
        backend: runs the model.
        batch_size: maximum number of rows per batch.
        batch_tokens: maximum number of tokens per batch, unless one row has more; `None` for no limit.
        dispatch: chooses the rows that run next.
    """

    def __init__(self, backend: Backend, batch_size: int, batch_tokens: int | None, dispatch: Dispatch):
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self._backend = backend
        self._dispatch = dispatch
        self._arrivals = ArrivalQueue()
        self._waiting = [ExitQueue(backend) for _ in range(len(backend.artifact.exits) - 1)]

    @property
    def queues(self) -> list[ArrivalQueue | ExitQueue]:
        """The queue before each exit."""
        return [self._arrivals, *self._waiting]

    def has_rows(self) -> bool:
        """Returns whether rows wait."""
        return bool(self._arrivals.rows) or any(queue.rows for queue in self._waiting)

    def put(self, submission: Submission) -> None:
        """Adds the rows of a submission."""
        self._arrivals.put(submission)

    def put_back(self, exit_index: int, rows: SharedRows) -> None:
        """Adds rows that stay at an exit."""
        self._waiting[exit_index].put(rows)

    def next(self, now: float = 0.0) -> Work | None:
        """Removes and returns the rows to compute next; `None` if there are none.

        Args:
            now: seconds of the clock by which the submissions have their times.
        """
        exit_index = self._dispatch.choose(self._arrivals, self._waiting, now)
        if exit_index is None:
            return None
        plan = self._dispatch.plan(exit_index, self._arrivals, self._waiting, self.batch_size)
        max_tokens = plan.max_tokens if self.batch_tokens is None else min(plan.max_tokens, self.batch_tokens)
        if exit_index > 0:
            return Work(exit_index, rows=self._waiting[exit_index - 1].take(self.batch_size, max_tokens))
        return Work(0, self._arrivals.take(self.batch_size, max_tokens), to_the_end=plan.to_the_end)

    def next_short(self, max_tokens: int) -> Work | None:
        """Removes and returns new rows with at most so many tokens, for a short run to their end; `None` if the first
        of them has more, or if there is none."""
        front = self._arrivals.front
        if front is None or front.next_length() > max_tokens:
            return None
        return Work(0, self._arrivals.take(self.batch_size, max_tokens), to_the_end=True, is_short=True)

    def run_all(self) -> Iterator[Outcome]:
        """Computes rows until the dispatch finds none to run; yields the result of each run.

        This is the loop of a single caller whose rows have no deadline. An error of the backend is raised.
        """
        while (work := self.next()) is not None:
            outcome = work.run(self._backend)
            if outcome.staying is not None:
                self.put_back(work.exit_index, outcome.staying)
            yield outcome

    def remove_over(self) -> None:
        """Removes the rows of submissions that are over."""
        for queue in self.queues:
            queue.remove_over()

    def remove_expired(self) -> list[tuple[Submission, np.ndarray]]:
        """Removes embedded rows of submissions whose deadline has passed, and returns them by submission."""
        return [each for queue in self._waiting for each in queue.remove_expired()]
