"""One run of the loop: rows that are computed together, up to the decision at their next exit or to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.exit_decision import pass_exit
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.shared_rows import SharedRows
from itrex_sweet.runtime.submission import Submission


@dataclass(eq=False)
class Outcome:
    """Result of a run.

    Args:
        left: submissions that have recorded answers, and the number of rows that left.
        staying: rows that wait for the next segment, `None` if there are none.
        left_at: number of rows that left at each exit, (exits,) int64, if they ran through all exits at once, else
            `None`.
    """

    left: list[tuple[Submission, int]]
    staying: SharedRows | None
    left_at: np.ndarray | None = None

    @property
    def count(self) -> int:
        """Number of rows that left."""
        return sum(count for _, count in self.left)


@dataclass(eq=False)
class Work:
    """Rows that run to one exit together: embedded first, or from the exit before.

    Args:
        exit_index: index of the exit.
        taken: submissions and their rows to embed.
        rows: rows at the exit before.
        to_the_end: whether the rows may run through all exits at once.
        is_short: whether a thread runs them that has little time, on one thread.
    """

    exit_index: int
    taken: Sequence[tuple[Submission, np.ndarray]] = ()
    rows: SharedRows | None = None
    to_the_end: bool = False
    is_short: bool = False

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else sum(len(rows) for _, rows in self.taken)

    def tokens(self) -> int:
        """Returns the number of tokens."""
        if self.rows is not None:
            return self.rows.tokens
        return sum(submission.tokens_in(rows) for submission, rows in self.taken)

    def by_owner(self) -> list[tuple[Submission, np.ndarray]]:
        """Returns each submission and the indices of its rows."""
        return list(self.taken) if self.rows is None else self.rows.by_owner()

    def run(self, backend: Backend) -> Outcome:
        """Computes the rows, and records the outputs of those that leave."""
        if self.to_the_end and self._is_uniform():
            outcome = self._answer(backend)
            if outcome is not None:
                return outcome
        rows = self._advanced(backend)
        left, staying = pass_exit(backend, self.exit_index, rows)
        return Outcome([(owner, part.stop - part.start) for owner, part in rows.runs(left)], staying)

    def attempts(
        self, backend: Backend, clock: Callable[[], float]
    ) -> Iterator[tuple[Work, Outcome | Exception, float]]:
        """Runs the rows. If that fails, runs those of each submission alone, so that only those fail that cannot be
        computed.

        Yields:
            each run that ends, its result or its error, and the time at which it began.
        """
        started = clock()
        try:
            outcome: Outcome | Exception = self.run(backend)
        except Exception as error:
            parts = self._parts()
            if len(parts) > 1:
                for part in parts:
                    yield from part.attempts(backend, clock)
                return
            outcome = error
        yield self, outcome, started

    def _parts(self) -> list[Work]:
        """Returns a run of the rows of each submission."""
        if self.rows is None:
            return [Work(self.exit_index, [each]) for each in self.taken]
        owners = dict.fromkeys(self.rows.owners)
        own = [self.rows.without(lambda owner, own=own: owner is not own)[0] for own in owners]
        return [Work(self.exit_index, rows=rows) for rows in own]

    def _is_uniform(self) -> bool:
        """Returns whether the rows are those of whole requests under one policy and without deadline."""
        policy = self.taken[0][0].policy
        return all(
            owner.policy is policy and owner.deadline is None and len(rows) == len(owner.batch)
            for owner, rows in self.taken
        )

    def _advanced(self, backend: Backend) -> SharedRows:
        """Returns the rows at the exit, which is not probed yet."""
        if self.rows is not None:
            return self.rows.with_hidden(backend.advance(self.exit_index - 1, self.rows.hidden))
        batch = TokenBatch.concatenate([submission.select(rows) for submission, rows in self.taken])
        return SharedRows.of(self.taken, batch.lengths, backend.embed(batch))

    def _answer(self, backend: Backend) -> Outcome | None:
        """Runs the rows through all exits in one call of the backend; returns `None` if it has no such call."""
        batch = TokenBatch.concatenate([submission.batch for submission, _ in self.taken])
        answers = backend.answer(batch, self.taken[0][0].policy)
        if answers is None:
            return None
        start = 0
        for submission, rows in self.taken:
            submission.record_all(answers.part(start, start + len(rows)))
            start += len(rows)
        left_at = np.bincount(answers.exit_index, minlength=len(backend.artifact.exits))
        return Outcome([(submission, len(rows)) for submission, rows in self.taken], None, left_at)

    def trace(self, started: float, finished: float) -> None:
        """Appends the run to the traces of requests that have one."""
        owners = self.rows.owners if self.rows is not None else [submission for submission, _ in self.taken]
        if all(owner.request.trace is None for owner in owners):
            return
        counts: dict[Submission, int] = {}
        for submission, rows in self.by_owner():
            counts[submission] = counts.get(submission, 0) + len(rows)
        for submission, count in counts.items():
            if submission.request.trace is not None:
                submission.request.trace.append((self.exit_index, started, finished, count, len(self)))
