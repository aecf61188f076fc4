"""One run of the scheduler: rows that are computed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.queues import tokens_of
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.shared_rows import SharedRows
from itrex_sweet.runtime.submission import Submission


@dataclass(frozen=True)
class Work:
    """Rows that run to one exit together: embedded first, or from the exit before.

    Args:
        exit_index: index of the exit.
        taken: submissions and their rows to embed.
        rows: rows at the exit before.
        to_the_end: whether the rows may run through all exits at once.
    """

    exit_index: int
    taken: Sequence[tuple[Submission, np.ndarray]] = ()
    rows: SharedRows | None = None
    to_the_end: bool = False

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else sum(len(rows) for _, rows in self.taken)

    def tokens(self) -> int:
        """Returns the number of tokens."""
        if self.rows is not None:
            return tokens_of(self.rows)
        return sum(submission.tokens_in(rows) for submission, rows in self.taken)

    def owners(self) -> list[Submission]:
        """Returns the submission of each row."""
        if self.rows is not None:
            return self.rows.owners
        return [submission for submission, rows in self.taken for _ in range(len(rows))]

    def submissions(self) -> set[Submission]:
        """Returns the submissions of the rows."""
        return set(self.rows.owners) if self.rows is not None else {submission for submission, _ in self.taken}

    def advanced(self, backend: Backend) -> SharedRows:
        """Returns the rows at the exit, which is not probed yet."""
        if self.rows is not None:
            hidden = backend.advance(self.exit_index - 1, self.rows.hidden)
            return SharedRows(self.rows.owners, self.rows.rows, hidden, self.rows.states)
        batch = TokenBatch.concatenate([submission.select(rows) for submission, rows in self.taken])
        rows = np.concatenate([rows for _, rows in self.taken])
        return SharedRows(self.owners(), rows, backend.embed(batch))

    def answer(self, backend: Backend) -> np.ndarray | None:
        """Runs the rows of whole requests under one policy through all exits in one call of the backend.

        Returns:
            number of rows that left at each exit; `None` if the backend has no such call.
        """
        batch = TokenBatch.concatenate([submission.batch for submission, _ in self.taken])
        answers = backend.answer(batch, self.taken[0][0].policy)
        if answers is None:
            return None
        start = 0
        for submission, rows in self.taken:
            submission.record_all(answers.part(start, start + len(rows)))
            start += len(rows)
        return np.bincount(answers.exit_index, minlength=len(backend.artifact.exits))

    def trace(self, started: float, finished: float) -> None:
        """Appends the run to the traces of requests that have one."""
        traced = [submission for submission in self.submissions() if submission.request.trace is not None]
        if traced:
            owners = self.owners()
            for submission in traced:
                own = sum(owner is submission for owner in owners)
                submission.request.trace.append((self.exit_index, started, finished, own, len(owners)))
