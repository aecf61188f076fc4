"""Queues of the scheduler: rows that are not embedded yet, and rows that wait before an exit for its segment."""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.shared_rows import SharedRows
from itrex_sweet.runtime.submission import Submission


class ArrivalQueue:
    """Submissions with rows that are not embedded yet, the one due first at the front."""

    def __init__(self) -> None:
        self._heap: list[Submission] = []
        self.rows = 0
        self.tokens = 0

    @property
    def front(self) -> Submission | None:
        """The submission that is served next."""
        return self._heap[0] if self._heap else None

    @property
    def held_since(self) -> float | None:
        """Time since which the first request has waited for the rest of its rows, `None` if it has not started."""
        return self._heap[0].started_at if self._heap else None

    @property
    def earliest_deadline(self) -> float | None:
        """Deadline of the first request, which is the earliest unless priorities say otherwise."""
        return self._heap[0].deadline if self._heap else None

    def put(self, submission: Submission) -> None:
        """Adds a submission."""
        heapq.heappush(self._heap, submission)
        self.rows += submission.untaken
        self.tokens += sum(submission.token_counts)

    def take(self, max_rows: int, max_tokens: int) -> list[tuple[Submission, np.ndarray]]:
        """Removes and returns rows of submissions, at least one row and otherwise within both limits."""
        taken: list[tuple[Submission, np.ndarray]] = []
        while self._heap and max_rows > 0:
            submission = self._heap[0]
            if taken and submission.next_length() > max_tokens:
                break
            rows = submission.take(max_rows, max_tokens)
            if not submission.untaken:
                heapq.heappop(self._heap)
            tokens = submission.tokens_in(rows)
            max_rows, max_tokens = max_rows - len(rows), max_tokens - tokens
            self.rows, self.tokens = self.rows - len(rows), self.tokens - tokens
            taken.append((submission, rows))
        return taken

    def remove_over(self) -> None:
        """Removes the submissions that are over."""
        if any(submission.is_over for submission in self._heap):
            self._heap = [submission for submission in self._heap if not submission.is_over]
            heapq.heapify(self._heap)
            self.rows = sum(submission.untaken for submission in self._heap)
            self.tokens = sum(submission.untaken_tokens() for submission in self._heap)


class ExitQueue:
    """Rows that wait before one exit for the segment to the next. Within a part, the row due first is at the front."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._heap: list[tuple[float, int, SharedRows]] = []
        self._numbers = itertools.count()
        self.rows = 0
        self.tokens = 0

    @property
    def front(self) -> Submission | None:
        """The submission of the row that is due first."""
        return self._heap[0][2].owners[0] if self._heap else None

    @property
    def held_since(self) -> float | None:
        """Time at which the first of the waiting requests was embedded."""
        times = [part.held_since for _, _, part in self._heap]
        return min(times) if times else None

    @property
    def earliest_deadline(self) -> float | None:
        """Earliest deadline of a waiting row."""
        deadlines = [part.earliest_deadline for _, _, part in self._heap if part.earliest_deadline is not None]
        return min(deadlines, default=None)

    def put(self, rows: SharedRows) -> None:
        """Adds rows."""
        self._push(rows)
        self.rows += len(rows)
        self.tokens += tokens_of(rows)

    def take(self, max_rows: int, max_tokens: int) -> SharedRows:
        """Removes and returns rows, at least one and otherwise within both limits. The queue must not be empty."""
        parts: list[SharedRows] = []
        while self._heap and max_rows > 0:
            part = heapq.heappop(self._heap)[2]
            lengths = lengths_of(part)
            count = min(_within(lengths, max_tokens), max_rows)
            if count == 0 and parts:
                self._push(part)
                break
            count = max(count, 1)
            if count < len(part):
                part, others = part.split(count)
                self._push(others)
            max_rows, max_tokens = max_rows - count, max_tokens - sum(lengths[:count])
            parts.append(part)
        taken = SharedRows.merged(self._backend, parts)
        self.rows -= len(taken)
        self.tokens -= tokens_of(taken)
        return taken

    def remove_over(self) -> None:
        """Removes the rows of submissions that are over."""
        self._replace([living for _, _, part in self._heap if (living := part.living()) is not None])

    def remove_expired(self) -> list[tuple[Submission, int]]:
        """Removes the rows of submissions whose deadline has passed; returns the submission and index of each."""
        removed: list[tuple[Submission, int]] = []
        kept: list[SharedRows] = []
        for _, _, part in self._heap:
            places = [place for place, owner in enumerate(part.owners) if not owner.is_expired]
            if len(places) < len(part):
                indices = zip(part.owners, part.rows.tolist(), strict=True)
                removed += [(owner, row) for owner, row in indices if owner.is_expired]
                if not places:
                    continue
                part = part.select(np.array(places))
            kept.append(part)
        if removed:
            self._replace(kept)
        return removed

    def _push(self, rows: SharedRows) -> None:
        heapq.heappush(self._heap, (rows.owners[0].due, next(self._numbers), rows))

    def _replace(self, parts: list[SharedRows]) -> None:
        self._heap = []
        for part in parts:
            self._push(part)
        self.rows = sum(map(len, parts))
        self.tokens = sum(map(tokens_of, parts))


def lengths_of(rows: SharedRows) -> list[int]:
    """Returns the number of tokens of each row."""
    return [owner.token_counts[row] for owner, row in zip(rows.owners, rows.rows.tolist(), strict=True)]


def tokens_of(rows: SharedRows) -> int:
    """Returns the number of tokens of all rows."""
    return sum(lengths_of(rows))


def _within(lengths: list[int], max_tokens: int) -> int:
    """Returns how many of the first rows have at most this many tokens together."""
    for count, total in enumerate(itertools.accumulate(lengths)):
        if total > max_tokens:
            return count
    return len(lengths)
