"""The requests of a scheduler that have no answer yet: their deadlines, their end, and counts."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from itrex_sweet.errors import DeadlineExceeded
from itrex_sweet.runtime.batching import Batcher
from itrex_sweet.runtime.shared_rows import SharedRows
from itrex_sweet.runtime.submission import Submission

_MAX_ENDED = 64  # requests kept until their deadline although they are answered, beside twice those that are not


class OpenRequests:
    """Submissions without an answer. Used under the lock of the scheduler.

    Args:
        batcher: holds their rows.
        num_exits: of the model.
        clock: returns seconds.
        lock: of the scheduler.

    Attributes:
        unanswered: rows without an answer.
        answered: rows by the exit that answered, (exits,) int64.
        expired, cancelled: requests; see `Snapshot`.
        degraded: rows; see `Snapshot`.
        has_rows_in_queues: whether rows of requests that are over may still be queued.
        none_left: notified when the last request has its answer.
    """

    def __init__(self, batcher: Batcher, num_exits: int, clock: Callable[[], float], lock: threading.Lock):
        self.unanswered = 0
        self.answered = np.zeros(num_exits, dtype=np.int64)
        self.expired = self.cancelled = self.degraded = 0
        self.has_rows_in_queues = False
        self.none_left = threading.Condition(lock)
        self._batcher = batcher
        self._clock = clock
        self._living: dict[int, Submission] = {}  # by number
        self._deadlines: list[tuple[float, int, Submission]] = []

    def __len__(self) -> int:
        return len(self._living)

    def __iter__(self) -> Iterator[Submission]:
        return iter(list(self._living.values()))

    def add(self, submission: Submission) -> None:
        """Adds a request."""
        self._living[submission.number] = submission
        self.unanswered += submission.unanswered
        if submission.deadline is not None:
            if len(self._deadlines) > 2 * len(self._living) + _MAX_ENDED:
                self._deadlines = [each for each in self._deadlines if not each[2].is_over]
                heapq.heapify(self._deadlines)
            heapq.heappush(self._deadlines, (submission.deadline, submission.number, submission))

    def expire(self, now: float) -> list[Submission]:
        """Ends the rows whose deadline has passed; returns the submissions that have all answers, or have failed."""
        ended: list[Submission] = []
        has_expired = False
        for submission in self._take_expired(now):
            if submission.untaken and submission.request.drop_expired:
                self.expired += 1
                self.end(submission, DeadlineExceeded("The deadline passed before the rows were computed."))
                ended.append(submission)
            else:
                submission.is_expired = has_expired = True
        if has_expired:
            self._answer_expired(self._batcher.remove_expired(), ended)
        self.remove_over()
        return ended

    def put_back(self, exit_index: int, rows: SharedRows, ended: list[Submission]) -> bool:
        """Queues rows for the next segment, except those whose deadline has passed meanwhile, which are answered, and
        those of requests that are over; returns whether there are any.

        Args:
            ended: receives the requests that have all answers.
        """
        staying, expired = rows.without(lambda submission: submission.is_expired)
        self._answer_expired(expired, ended)
        if staying is not None:
            staying, _ = staying.without(lambda submission: submission.is_over)
        if staying is not None:
            self._batcher.put_back(exit_index, staying)
        return staying is not None

    def remove_over(self) -> None:
        """Removes the queued rows of requests that are over."""
        if self.has_rows_in_queues:
            self.has_rows_in_queues = False
            self._batcher.remove_over()

    def _take_expired(self, now: float) -> Iterator[Submission]:
        """Yields the requests whose deadline has passed since the last call."""
        while self._deadlines and self._deadlines[0][0] <= now:
            submission = heapq.heappop(self._deadlines)[2]
            if not submission.is_over:
                yield submission

    def _answer_expired(self, removed: Sequence[tuple[Submission, np.ndarray]], ended: list[Submission]) -> None:
        """Answers rows with the outputs of the last exit that they reached."""
        for submission, rows in removed:
            submission.record_out_of_time(rows)
            self.count(submission, len(rows), ended)

    def count(self, submission: Submission, rows: int, ended: list[Submission]) -> None:
        """Counts answered rows of a request; ends it with its last row, and appends it to `ended` then."""
        if submission.is_over:
            return
        submission.unanswered -= rows
        self.unanswered -= rows
        if submission.unanswered == 0:
            self.end(submission)
            if submission.request.quality is not None:
                self.degraded += len(submission.batch)
            ended.append(submission)

    def end(self, submission: Submission, error: Exception | None = None) -> None:
        """Forgets a request; those of its rows that are queued are removed later.

        Args:
            error: with which it fails.
        """
        submission.error = error
        submission.is_over = True
        submission.finished_at = self._clock()
        self.unanswered -= submission.unanswered
        self.has_rows_in_queues = self.has_rows_in_queues or submission.unanswered > 0
        submission.unanswered = 0
        if self._living.pop(submission.number, None) is not None and not self._living:
            self.none_left.notify_all()
