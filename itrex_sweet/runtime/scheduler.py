"""The push scheduler: rows of many requests share the runs of segments, each under its own policy."""

from __future__ import annotations

import heapq
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.errors import DeadlineExceeded, Overloaded, SchedulerClosed
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.queues import ArrivalQueue, ExitQueue, tokens_of
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.shared_rows import SharedRows, pass_exit
from itrex_sweet.runtime.submission import Submission

DEFAULT_BATCH_SIZE = 32
DEFAULT_BATCH_TOKENS = 4096
DEFAULT_MAX_WAITING_ROWS = 2048

# Seconds by which one level of priority, or a deadline, can bring a request forward. Bounded, so that none starves.
_PRIORITY_SECONDS = 1.0
_NO_DEADLINE_SECONDS = 10.0  # requests without a deadline count as due so long after their arrival

_MAX_POLICIES = 256  # in a cache

# Called after each run of a segment: index of the exit that was reached, rows, tokens, seconds.
SegmentObserver = Callable[[int, int, int, float], None]


@dataclass(frozen=True)
class Snapshot:
    """Counts of a scheduler at one moment.

    Args:
        rows_waiting, tokens_waiting: by the exit that rows wait for; rows that wait for the first are not embedded.
        rows_answered: by the exit that answered, since the start.
        unanswered: rows without an answer, also those being computed.
        rejected: requests refused with `Overloaded`.
        expired: requests failed with `DeadlineExceeded`.
        cancelled: requests that were cancelled.
        degraded: rows answered under a policy that load had lowered.
        quality: of the policy of new requests, 1 unless load lowered it.
    """

    rows_waiting: tuple[int, ...]
    tokens_waiting: tuple[int, ...]
    rows_answered: tuple[int, ...]
    unanswered: int
    rejected: int
    expired: int
    cancelled: int
    degraded: int
    quality: float


class Scheduler:
    """Answers rows of requests; rows of different requests run through segments together. Thread-safe.

    Requests are served in the order in which they are due: `_NO_DEADLINE_SECONDS` after their arrival, or at their
    deadline if that is earlier, less `_PRIORITY_SECONDS` per level of priority. A later request overtakes an earlier
    one only if it arrives within a bounded time after it.

    Args:
        backend: runs the model.
        policy: of requests that have none.
        batch_size: maximum number of rows per run of a segment.
        batch_tokens: maximum number of tokens per run, unless one row has more.
        max_waiting_rows: maximum number of rows without an answer; a request beyond it is refused, unless there is no
            other.
        on_segment: called after each run of a segment.
        clock: returns seconds, by default `time.perf_counter`.
    """

    def __init__(
        self,
        backend: Backend,
        policy: Policy,
        batch_size: int = DEFAULT_BATCH_SIZE,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_waiting_rows: int = DEFAULT_MAX_WAITING_ROWS,
        on_segment: SegmentObserver | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.backend = backend
        self.policy = policy
        self.batch_size = whole_number("batch_size", batch_size, minimum=1)
        self.batch_tokens = whole_number("batch_tokens", batch_tokens, minimum=1)
        self.max_waiting_rows = whole_number("max_waiting_rows", max_waiting_rows, minimum=1)
        self.on_segment = on_segment
        self._clock = clock
        self._num_exits = len(backend.artifact.exits)
        self._policies: dict[Policy, Policy] = {}
        self._reset()
        _schedulers.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._arrivals = ArrivalQueue()
        self._waiting = [ExitQueue(self.backend) for _ in range(self._num_exits - 1)]
        self._deadlines: list[tuple[float, int, Submission]] = []
        self._living: dict[int, Submission] = {}  # by number
        self._unanswered = 0
        self._numbers = 0
        self._over_in_queues = False
        self._is_closed = False
        self._answered = np.zeros(self._num_exits, dtype=np.int64)
        self._rejected = self._expired = self._cancelled = self._degraded = 0
        self._seconds_per_row = self._busy = self._answered_lately = 0.0

    # ------------------------------------------------------------------ callers

    def submit(self, batch: TokenBatch, request: Request | None = None) -> Future[Answers]:
        """Queues rows and returns the future of their answers, in the given order. `future.cancel()` drops the rows.

        Args:
            batch: any number of rows within the model's limits, as `Classifier.read` returns them.
            request: stopping options; by default the scheduler's policy.

        Returns:
            A future with the times `submitted_at`, `started_at` and `finished_at` in seconds of the clock. Its result
            has the `request` as it was answered.

        Raises:
            Overloaded: too many rows are waiting.
            SchedulerClosed: the scheduler does not accept requests any more.
        """
        request = request or Request(self.policy)
        policy, rows = self._for_task(request.policy), len(batch)
        if rows == 0:
            nothing: Future[Answers] = Future()
            answers = Answers.none(self.backend.num_labels)
            answers.request = request
            nothing.set_result(answers)
            return nothing
        now = self._clock()
        due = now + _NO_DEADLINE_SECONDS
        if request.deadline is not None:
            due = max(min(due, request.deadline), now)
        due -= _PRIORITY_SECONDS * request.priority
        with self._changed:
            if self._is_closed:
                raise SchedulerClosed("The scheduler is closed and accepts no requests.")
            if self._unanswered and self._unanswered + rows > self.max_waiting_rows:
                self._rejected += 1
                raise Overloaded(
                    f"{self._unanswered} rows are waiting, and {rows} more exceed the limit of "
                    f"{self.max_waiting_rows}; try again later.",
                    self._unanswered * self._seconds_per_row,
                )
            self._numbers += 1
            submission = Submission(batch, request, policy, self.backend.num_labels, self._numbers, now, due)
            self._living[submission.number] = submission
            self._arrivals.put(submission)
            if submission.deadline is not None:
                heapq.heappush(self._deadlines, (submission.deadline, submission.number, submission))
            self._unanswered += rows
            self._changed.notify()
        submission.add_done_callback(self._on_done)
        return submission

    def close(self) -> None:
        """Refuses new requests, and fails those without an answer with `SchedulerClosed`."""
        with self._changed:
            self._is_closed = True
            living = list(self._living.values())
            for submission in living:
                submission.error = SchedulerClosed("The scheduler was closed before it answered the request.")
                self._end(submission)
            self._changed.notify_all()
        for submission in living:
            submission.resolve()

    def refuse(self) -> None:
        """Refuses new requests; those that were accepted are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def snapshot(self) -> Snapshot:
        """Returns the counts of this moment."""
        with self._changed:
            self._remove_over()
            queues = [self._arrivals, *self._waiting]
            return Snapshot(
                tuple(queue.rows for queue in queues),
                tuple(queue.tokens for queue in queues),
                tuple(self._answered.tolist()),
                self._unanswered,
                self._rejected,
                self._expired,
                self._cancelled,
                self._degraded,
                1.0,
            )

    # ------------------------------------------------------------------ workers

    @property
    def is_closed(self) -> bool:
        """True if new requests are refused."""
        return self._is_closed

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until there are rows to compute; returns false if there are none after this time, or if the scheduler
        is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_work() or self._is_closed, seconds)
            return self._has_work()

    def wait_until_answered(self, seconds: float | None = None) -> bool:
        """Waits until every accepted request is answered; returns false if not after this time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._living, seconds)

    def step(self) -> bool:
        """Runs one segment of one batch, or a lone request to its end; returns false if there was nothing to do.

        Several threads may call it at once, if the backend may be called so.
        """
        ended: list[Submission] = []
        try:
            with self._changed:
                ended += self._expire(self._clock())
                work = self._next()
            if work is not None:
                self._run(work, ended)
            return work is not None or bool(ended)
        finally:
            for submission in ended:
                submission.resolve()

    # ------------------------------------------------------------------ with the lock

    def _has_work(self) -> bool:
        return bool(self._arrivals.rows) or any(queue.rows for queue in self._waiting)

    def _choose(self) -> int | None:
        """Returns the index of the exit whose rows run next, that of the row due first; the deepest of equals."""
        best, found = None, None
        for exit_index in range(self._num_exits - 1, -1, -1):
            front = self._waiting[exit_index - 1].front if exit_index else self._arrivals.front
            if front is not None and (best is None or front < best):
                best, found = front, exit_index
        return found

    def _next(self) -> _Work | None:
        """Takes the rows to compute next from their queue."""
        exit_index = self._choose()
        if exit_index is None:
            return None
        if exit_index > 0:
            return _Work(exit_index, rows=self._waiting[exit_index - 1].take(self.batch_size, self.batch_tokens))
        first = self._arrivals.front
        is_alone = len(self._living) == 1 and first.untaken == len(first.batch) and first.deadline is None
        taken = self._arrivals.take(self.batch_size, self.batch_tokens)
        return _Work(0, taken, lone=first if is_alone and not first.untaken else None)

    def _expire(self, now: float) -> list[Submission]:
        """Ends the rows whose deadline has passed; returns the submissions that have all answers, or have failed."""
        ended: list[Submission] = []
        expired = False
        while self._deadlines and self._deadlines[0][0] <= now:
            submission = heapq.heappop(self._deadlines)[2]
            if submission.is_over:
                continue
            if submission.untaken and submission.request.drop_expired:
                submission.error = DeadlineExceeded("The deadline passed before the rows were computed.")
                self._expired += 1
                self._end(submission)
                ended.append(submission)
                continue
            submission.is_expired = expired = True
        if expired:
            for queue in self._waiting:
                for submission, row in queue.remove_expired():
                    submission.record_out_of_time(row)
                    self._count(submission, 1, ended)
        self._remove_over()
        return ended

    def _count(self, submission: Submission, rows: int, ended: list[Submission]) -> None:
        """Counts answered rows of a submission, and ends it with its last row."""
        if submission.is_over:
            return
        submission.unanswered -= rows
        self._unanswered -= rows
        if submission.unanswered == 0:
            self._end(submission)
            ended.append(submission)

    def _end(self, submission: Submission) -> None:
        """Forgets a submission; its rows that wait are removed later."""
        submission.is_over = True
        submission.finished_at = self._clock()
        self._unanswered -= submission.unanswered
        self._over_in_queues = self._over_in_queues or submission.unanswered > 0
        submission.unanswered = 0
        if self._living.pop(submission.number, None) is not None and not self._living:
            self._changed.notify_all()

    def _remove_over(self) -> None:
        if self._over_in_queues:
            self._over_in_queues = False
            for queue in (self._arrivals, *self._waiting):
                queue.remove_over()

    # ------------------------------------------------------------------ without the lock

    def _run(self, work: _Work, ended: list[Submission]) -> None:
        """Runs rows to their next exit, and appends the submissions that ended."""
        started = self._clock()
        try:
            if (
                work.lone is not None
                and (answers := self.backend.answer(work.lone.batch, work.lone.policy)) is not None
            ):
                work.lone.record_all(answers)
                left, staying = [work.lone] * len(work.lone.batch), None
                counts = np.bincount(answers.exit_index, minlength=self._num_exits)
                exit_index, tokens = int(answers.exit_index.max()), int(work.lone.batch.cu_seqlens[-1])
            else:
                rows, exit_index = work.advanced(self.backend), work.exit_index
                left, staying = pass_exit(self.backend, exit_index, rows)
                counts = np.bincount([exit_index] * len(left), minlength=self._num_exits)
                tokens = tokens_of(rows)
        except Exception as error:
            with self._changed:
                for submission in work.submissions():
                    if not submission.is_over:
                        submission.error = error
                        self._end(submission)
                        ended.append(submission)
            return
        finished = self._clock()
        with self._changed:
            for submission in work.submissions():
                submission.started_at = submission.started_at or started
            self._answered += counts
            for submission in left:
                self._count(submission, 1, ended)
            if staying is not None:
                self._put_back(exit_index, staying, ended)
            self._pace(len(left), finished - started)
        work.trace(exit_index, started, finished)
        if self.on_segment is not None:
            self.on_segment(exit_index, len(work), tokens, finished - started)

    def _put_back(self, exit_index: int, rows: SharedRows, ended: list[Submission]) -> None:
        """Queues rows for the next segment, except those whose deadline has passed meanwhile, which are answered."""
        if any(owner.is_expired for owner in rows.owners):
            for owner, row in zip(rows.owners, rows.rows.tolist(), strict=True):
                if owner.is_expired:
                    owner.record_out_of_time(row)
                    self._count(owner, 1, ended)
            places = [place for place, owner in enumerate(rows.owners) if not owner.is_expired]
            if not places:
                return
            rows = rows.select(np.array(places))
        living = rows.living()
        if living is not None:
            self._waiting[exit_index].put(living)
            self._changed.notify()

    def _pace(self, answered: int, seconds: float) -> None:
        """Updates the estimate of the time per answered row, a moving average."""
        self._busy = 0.98 * self._busy + seconds
        self._answered_lately = 0.98 * self._answered_lately + answered
        self._seconds_per_row = self._busy / max(self._answered_lately, 1.0)

    def _on_done(self, submission: Future) -> None:
        """Drops the rows of a cancelled submission."""
        if submission.cancelled():
            with self._changed:
                self._cancelled += 1
                if not submission.is_over:
                    self._end(submission)

    def _for_task(self, policy: Policy) -> Policy:
        """Returns the policy for the task of the model, the same object for equal policies."""
        found = self._policies.get(policy)
        if found is None:
            task = self.backend.task.name
            found = policy if policy.task == task else policy.for_task(task, self.backend.num_labels)
            if len(self._policies) >= _MAX_POLICIES:
                self._policies = {}
            self._policies[policy] = found
        return found


@dataclass(frozen=True)
class _Work:
    """Rows that run to one exit together: embedded first, or from the exit before.

    Args:
        exit_index: index of the exit.
        taken: submissions and their rows to embed.
        rows: rows before the exit that comes before.
        lone: the submission, if no other is unanswered and it may run through all exits at once.
    """

    exit_index: int
    taken: Sequence[tuple[Submission, np.ndarray]] = ()
    rows: SharedRows | None = None
    lone: Submission | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.rows is not None else sum(len(rows) for _, rows in self.taken)

    def submissions(self) -> set[Submission]:
        """Returns the submissions of the rows."""
        return set(self.rows.owners) if self.rows is not None else {submission for submission, _ in self.taken}

    def advanced(self, backend: Backend) -> SharedRows:
        """Returns the rows before the exit."""
        if self.rows is not None:
            hidden = backend.advance(self.exit_index - 1, self.rows.hidden)
            return SharedRows(self.rows.owners, self.rows.rows, hidden, self.rows.states)
        owners = [submission for submission, rows in self.taken for _ in range(len(rows))]
        batch = TokenBatch.concatenate([submission.select(rows) for submission, rows in self.taken])
        return SharedRows(owners, np.concatenate([rows for _, rows in self.taken]), backend.embed(batch))

    def trace(self, exit_index: int, started: float, finished: float) -> None:
        """Appends the run to the traces of requests that have one."""
        for submission in self.submissions():
            if submission.request.trace is not None:
                owners = [owner for owner, rows in self.taken for _ in rows] if self.rows is None else self.rows.owners
                own = sum(owner is submission for owner in owners)
                submission.request.trace.append((exit_index, started, finished, own, len(owners)))


_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _reset_in_child() -> None:
    """Empties schedulers: a child has no thread that answers the parent's requests, and locks may be held."""
    for scheduler in list(_schedulers):
        scheduler._reset()


os.register_at_fork(after_in_child=_reset_in_child)
