"""The push scheduler: rows of many requests share the runs of segments, each under its own policy."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.errors import DeadlineExceeded, Overloaded, SchedulerClosed
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.degradation import Degradation
from itrex_sweet.runtime.dispatch import Dispatch, MostAnswers
from itrex_sweet.runtime.open_requests import OpenRequests
from itrex_sweet.runtime.queues import ArrivalQueue, ExitQueue
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.shared_rows import SharedRows, pass_exit
from itrex_sweet.runtime.snapshot import Snapshot
from itrex_sweet.runtime.step_costs import StepCosts
from itrex_sweet.runtime.submission import Submission
from itrex_sweet.runtime.work import Work

DEFAULT_BATCH_SIZE = 32
DEFAULT_BATCH_TOKENS = 4096
DEFAULT_MAX_WAITING_ROWS = 2048

# Seconds by which one level of priority, or a deadline, can bring a request forward. Bounded, so that none starves.
_PRIORITY_SECONDS = 1.0
_NO_DEADLINE_SECONDS = 10.0  # requests without a deadline count as due so long after their arrival

_MAX_POLICIES = 256  # in a cache
_PACE_MEMORY = 0.98  # weight of earlier runs in the estimate of the time per row, per run

# Called after each run of a segment: index of the exit that was reached, rows, tokens, seconds.
SegmentObserver = Callable[[int, int, int, float], None]


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
            other, or quality can still fall.
        dispatch: chooses the rows that run next, by default `MostAnswers`.
        degradation: lowers the quality of requests under the scheduler's policy when many rows wait.
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
        dispatch: Dispatch | None = None,
        degradation: Degradation | None = None,
        on_segment: SegmentObserver | None = None,
        clock: Callable[[], float] | None = None,
    ):
        self.backend = backend
        self.policy = policy
        self.batch_size = whole_number("batch_size", batch_size, minimum=1)
        self.batch_tokens = whole_number("batch_tokens", batch_tokens, minimum=1)
        self.max_waiting_rows = whole_number("max_waiting_rows", max_waiting_rows, minimum=1)
        self.on_segment = on_segment
        self.degradation = degradation
        self.workers = 1  # threads that call `step`
        self._clock = clock or time.perf_counter
        self._num_exits = len(backend.artifact.exits)
        self._costs = StepCosts(self._num_exits, backend.artifact.costs)
        self._dispatch = dispatch or MostAnswers(self._costs)
        self._policies: dict[Policy, Policy] = {}
        self._reset()
        _schedulers.add(self)

    def _reset(self) -> None:
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._open = OpenRequests(self._num_exits, self._clock, lock)
        self._arrivals = ArrivalQueue()
        self._waiting = [ExitQueue(self.backend) for _ in range(self._num_exits - 1)]
        self._numbers = 0
        self._is_closed = False
        self._busy = self._answered_lately = 0.0  # seconds and rows, moving sums

    # ------------------------------------------------------------------ callers

    def submit(self, batch: TokenBatch, request: Request | None = None, here_within: float = 0.0) -> Future[Answers]:
        """Queues rows and returns the future of their answers, in the given order. `future.cancel()` drops the rows.

        Args:
            batch: any number of rows within the model's limits, as `Classifier.read` returns them.
            request: stopping options; by default the scheduler's policy.
            here_within: if no other rows wait, and these are expected to take at most so many seconds, the calling
                thread computes them before `submit` returns, which is sooner than another thread would.

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
            waiting = self._open.unanswered
            is_full = waiting and waiting + rows > self.max_waiting_rows
            if is_full and (self.degradation is None or self.degradation.is_at_floor):
                self._open.rejected += 1
                raise Overloaded(
                    f"{waiting} rows are waiting, and {rows} more exceed the limit of {self.max_waiting_rows}; try "
                    "again later.",
                    waiting * self.seconds_per_row,
                )
            self._numbers += 1
            submission = Submission(batch, request, policy, self.backend.num_labels, self._numbers, now, due)
            is_here = here_within > 0.0 and self._is_idle() and self._is_within(submission, here_within)
            self._open.add(submission)
            if is_here:
                self._start(submission, now)
            else:
                self._arrivals.put(submission)
                self._changed.notify()
        if is_here:
            ended: list[Submission] = []
            self._run(Work(0, [(submission, submission.take_all())], to_the_end=True), ended)
            for each in ended:
                each.resolve()
        submission.add_done_callback(self._on_done)
        return submission

    def _is_idle(self) -> bool:
        return not (self._open.unanswered or self._open.has_rows_in_queues)

    def _is_within(self, submission: Submission, seconds: float) -> bool:
        """Returns whether a request is one batch that runs to the end in this time."""
        rows, tokens = submission.size
        fits = rows <= self.batch_size and tokens <= self.batch_tokens and submission.deadline is None
        return fits and self._costs.seconds_to_the_end(tokens) <= seconds

    def close(self) -> None:
        """Refuses new requests, and fails those without an answer with `SchedulerClosed`."""
        with self._changed:
            self._is_closed = True
            living = list(self._open)
            for submission in living:
                self._open.end(submission, SchedulerClosed("The scheduler was closed before it answered the request."))
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
                tuple(self._open.answered.tolist()),
                self._open.unanswered,
                self._open.rejected,
                self._open.expired,
                self._open.cancelled,
                self._open.degraded,
                1.0 if self.degradation is None else self.degradation.level.quality or 1.0,
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
            return self._open.none_left.wait_for(lambda: not self._open, seconds)

    def step(self) -> bool:
        """Runs one segment of one batch, or requests to their end; returns false if there was nothing to do.

        Several threads may call it at once, if the backend may be called so.
        """
        began, computing = self._clock(), 0.0
        ended: list[Submission] = []
        try:
            with self._changed:
                ended += self._expire(began)
                work = self._next()
            if work is not None:
                computing = self._run(work, ended)
        finally:
            for submission in ended:
                submission.resolve()
        if work is not None:
            self._costs.observe_step(self._clock() - began - computing)
        return work is not None or bool(ended)

    # ------------------------------------------------------------------ with the lock

    def _has_work(self) -> bool:
        return bool(self._arrivals.rows) or any(queue.rows for queue in self._waiting)

    def _next(self) -> Work | None:
        """Takes the rows to compute next from their queue."""
        now = self._clock()
        exit_index = self._dispatch.choose(self._arrivals, self._waiting, now)
        if exit_index is None:
            return None
        plan = self._dispatch.plan(exit_index, self._arrivals, self._waiting, self.batch_size)
        max_tokens = int(min(plan.max_tokens, self.batch_tokens))
        if exit_index > 0:
            return Work(exit_index, rows=self._waiting[exit_index - 1].take(self.batch_size, max_tokens))
        taken = self._arrivals.take(self.batch_size, max_tokens)
        for submission, _ in taken:
            if submission.started_at is None:
                self._start(submission, now)
        policy = taken[0][0].policy
        to_the_end = plan.to_the_end and all(
            owner.policy is policy and owner.deadline is None and len(rows) == len(owner.batch) for owner, rows in taken
        )
        return Work(0, taken, to_the_end=to_the_end)

    def _start(self, submission: Submission, now: float) -> None:
        """Notes the start of a request, and chooses its policy by the load."""
        submission.started_at = now
        if self.degradation is None or submission.request.policy != self.policy:
            return
        level = self.degradation.update(self._open.unanswered, self.seconds_per_row)
        if level.quality is not None:
            submission.policy, submission.cost = self._for_task(level.policy), level.cost
            submission.request = dataclasses.replace(submission.request, policy=level.policy, quality=level.quality)

    def _expire(self, now: float) -> list[Submission]:
        """Ends the rows whose deadline has passed; returns the submissions that have all answers, or have failed."""
        ended: list[Submission] = []
        expired = False
        for submission in self._open.take_expired(now):
            if submission.untaken and submission.request.drop_expired:
                self._open.expired += 1
                self._open.end(submission, DeadlineExceeded("The deadline passed before the rows were computed."))
                ended.append(submission)
            else:
                submission.is_expired = expired = True
        if expired:
            for queue in self._waiting:
                for submission, row in queue.remove_expired():
                    submission.record_out_of_time(row)
                    self._open.count(submission, 1, ended)
        self._remove_over()
        return ended

    def _remove_over(self) -> None:
        if self._open.has_rows_in_queues:
            self._open.has_rows_in_queues = False
            for queue in (self._arrivals, *self._waiting):
                queue.remove_over()

    # ------------------------------------------------------------------ without the lock

    def _run(self, work: Work, ended: list[Submission]) -> float:
        """Runs rows to their next exit or to the end, and appends the submissions that ended; returns the seconds."""
        started = self._clock()
        exit_index = work.exit_index
        try:
            counts = work.answer(self.backend) if work.to_the_end else None
            if counts is not None:
                left, staying = work.owners(), None
            else:
                left, staying = pass_exit(self.backend, exit_index, work.advanced(self.backend))
        except Exception as error:
            if len(work.taken) > 1:  # of these requests, the ones that cannot be computed shall fail alone
                return sum(self._run(Work(exit_index, [each]), ended) for each in work.taken)
            with self._changed:
                for submission in work.submissions():
                    if not submission.is_over:
                        self._open.end(submission, error)
                        ended.append(submission)
            return self._clock() - started
        finished = self._clock()
        seconds, tokens = finished - started, work.tokens()
        with self._changed:
            if counts is not None:
                self._open.answered += counts
                self._costs.observe_to_the_end(counts.tolist(), tokens, seconds)
            else:
                self._open.answered[exit_index] += len(left)
                self._costs.observe(exit_index, len(work), len(left), tokens, seconds)
            self._pace(left, seconds)
            for submission in left:
                self._open.count(submission, 1, ended)
            if staying is not None:
                self._put_back(exit_index, staying, ended)
        work.trace(started, finished)
        if self.on_segment is not None:
            self.on_segment(exit_index, len(work), tokens, seconds)
        return seconds

    def _put_back(self, exit_index: int, rows: SharedRows, ended: list[Submission]) -> None:
        """Queues rows for the next segment, except those whose deadline has passed meanwhile, which are answered."""
        if any(owner.is_expired for owner in rows.owners):
            for owner, row in zip(rows.owners, rows.rows.tolist(), strict=True):
                if owner.is_expired:
                    owner.record_out_of_time(row)
                    self._open.count(owner, 1, ended)
            places = [place for place, owner in enumerate(rows.owners) if not owner.is_expired]
            if not places:
                return
            rows = rows.select(np.array(places))
        living = rows.living()
        if living is not None:
            self._waiting[exit_index].put(living)
            self._changed.notify()

    @property
    def seconds_per_row(self) -> float:
        """Estimated seconds per row under the scheduler's policy, a moving average over all workers."""
        return self._busy / max(self._answered_lately, 1.0) / self.workers

    def _pace(self, left: list[Submission], seconds: float) -> None:
        self._busy = _PACE_MEMORY * self._busy + seconds
        self._answered_lately = _PACE_MEMORY * self._answered_lately + sum(owner.cost for owner in left)

    def _on_done(self, submission: Future) -> None:
        """Drops the rows of a cancelled submission."""
        if submission.cancelled():
            with self._changed:
                self._open.cancelled += 1
                is_over = submission.is_over
                if not is_over:
                    self._open.end(submission)
            if not is_over:  # else the thread that ended it resolves it
                submission.resolve()

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


_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _reset_in_child() -> None:
    """Empties schedulers: a child has no thread that answers the parent's requests, and locks may be held."""
    for scheduler in list(_schedulers):
        scheduler._reset()


os.register_at_fork(after_in_child=_reset_in_child)
