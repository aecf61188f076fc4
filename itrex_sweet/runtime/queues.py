"""Queues of the scheduler: rows that are not embedded yet, and rows that wait before an exit for its segment."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

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
        self.tokens += submission.size[1]

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
        return self._heap[0][2].front if self._heap else None

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
        self.tokens += rows.tokens

    def take(self, max_rows: int, max_tokens: int) -> SharedRows:
        """Removes and returns rows, at least one and otherwise within both limits. The queue must not be empty."""
        parts: list[SharedRows] = []
        while self._heap and max_rows > 0:
            part = heapq.heappop(self._heap)[2]
            tokens = part.tokens
            count = min(len(part), max_rows)
            if tokens > max_tokens:
                count = min(int(np.searchsorted(np.cumsum(part.lengths), max_tokens, side="right")), count)
                if count == 0 and parts:
                    self._push(part)
                    break
                count = max(count, 1)
            if count < len(part):
                part, others = part.split(count)
                self._push(others)
                tokens = part.tokens
            self.rows, self.tokens = self.rows - count, self.tokens - tokens
            max_rows, max_tokens = max_rows - count, max_tokens - tokens
            parts.append(part)
        return SharedRows.merged(self._backend, parts)

    def remove_over(self) -> None:
        """Removes the rows of submissions that are over."""
        self._remove(lambda submission: submission.is_over)

    def remove_expired(self) -> list[tuple[Submission, np.ndarray]]:
        """Removes the rows of submissions whose deadline has passed, and returns them by submission."""
        return self._remove(lambda submission: submission.is_expired)

    def _remove(self, is_removed: Callable[[Submission], bool]) -> list[tuple[Submission, np.ndarray]]:
        parts, self._heap = self._heap, []
        self.rows = self.tokens = 0
        removed: list[tuple[Submission, np.ndarray]] = []
        for _, _, part in parts:
            kept, own = part.without(is_removed)
            removed += own
            if kept is not None:
                self.put(kept)
        return removed

    def _push(self, rows: SharedRows) -> None:
        heapq.heappush(self._heap, (rows.front.due, next(self._numbers), rows))
