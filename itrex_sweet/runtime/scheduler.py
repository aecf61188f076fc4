"""The push scheduler: rows of many requests share the runs of segments, each under its own policy."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from itrex_sweet.arguments import finite_number, whole_number
from itrex_sweet.defaults import DEFAULT_BATCH_SIZE, DEFAULT_MAX_WAITING_ROWS
from itrex_sweet.errors import SchedulerClosed
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.admission import Admission
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.batching import DEFAULT_BATCH_TOKENS, Batcher
from itrex_sweet.runtime.degradation import Degradation
from itrex_sweet.runtime.dispatch import Dispatch, MostAnswers
from itrex_sweet.runtime.open_requests import OpenRequests
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.snapshot import Snapshot
from itrex_sweet.runtime.step_costs import StepCosts
from itrex_sweet.runtime.submission import Submission, resolve_all
from itrex_sweet.runtime.work import Outcome, Work

logger = logging.getLogger(__name__)

# Called after each run of a segment: index of the exit that was reached, rows, tokens, seconds.
SegmentObserver = Callable[[int, int, int, float], None]


class Scheduler:
    """Answers rows of requests; rows of different requests run through segments together. Thread-safe.

    Requests are served in the order in which they are due: `NO_DEADLINE_SECONDS` of `runtime.admission` after their
    arrival, or at their deadline if that is earlier, less `PRIORITY_SECONDS` per level of priority. A later request
    overtakes an earlier one only if it arrives within a bounded time after it.

    Args:
        backend: runs the model.
        policy: of requests that have none.
        batch_size: maximum number of rows per run of a segment.
        batch_tokens: maximum number of tokens per run, unless one row has more.
        max_waiting_rows: maximum number of rows without an answer; a request beyond it is refused, unless there is no
            other, or quality can still fall.
        dispatch: chooses the rows that run next, by default `MostAnswers`.
        degradation: lowers the quality of requests under the scheduler's policy when many rows wait.
        on_segment: called after each run of a segment; its errors are logged.
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
        self.batch_size = whole_number("batch_size", batch_size, minimum=1)
        self.batch_tokens = whole_number("batch_tokens", batch_tokens, minimum=1)
        max_waiting_rows = whole_number("max_waiting_rows", max_waiting_rows, minimum=1)
        self.on_segment = on_segment
        self._clock = clock or time.perf_counter
        self._costs = StepCosts(len(backend.artifact.exits), backend.artifact.costs, backend.threads)
        self._dispatch = dispatch or MostAnswers(self._costs)
        self._admission = Admission(backend, policy, max_waiting_rows, degradation)
        self._is_closed = False
        self._reset()

    def _reset(self) -> None:
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._batcher = Batcher(self.backend, self.batch_size, self.batch_tokens, self._dispatch)
        self._open = OpenRequests(self._batcher, len(self.backend.artifact.exits), self._clock, lock)
        self._computing = 0  # threads that run a step

    def reset_in_child(self) -> None:
        """Forgets all requests after a fork: a child has no thread that answers them, and locks may be held."""
        self._reset()

    # ------------------------------------------------------------------ callers

    @property
    def policy(self) -> Policy:
        """The policy of requests that have none."""
        return self._admission.policy

    @property
    def workers(self) -> int:
        """Number of threads that call `step`."""
        return self._admission.workers

    @workers.setter
    def workers(self, workers: int) -> None:
        self._admission.workers = whole_number("workers", workers, minimum=1)

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
        now = self._clock()
        with self._changed:
            if self._is_closed:
                raise SchedulerClosed("The scheduler is closed and accepts no requests.")
            submission = self._admission.accept(batch, request, now, self._open.unanswered)
            if not submission.unanswered:
                return submission.without_rows()
            is_here = here_within > 0.0 and self._is_idle() and self._is_within(submission, here_within)
            self._open.add(submission)
            if is_here:
                self._admission.start(submission, now, self._open.unanswered)
            else:
                self._batcher.put(submission)
                self._changed.notify()
        submission.add_done_callback(self._on_done)
        if is_here:
            self._compute(Work(0, [(submission, submission.take_all())], to_the_end=True))
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
            self._open.remove_over()
            self._changed.notify_all()
        resolve_all(living)

    def refuse(self) -> None:
        """Refuses new requests; those that were accepted are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def snapshot(self) -> Snapshot:
        """Returns the counts of this moment."""
        with self._changed:
            self._open.remove_over()
            return Snapshot(
                tuple(queue.rows for queue in self._batcher.queues),
                tuple(queue.tokens for queue in self._batcher.queues),
                tuple(self._open.answered.tolist()),
                self._open.unanswered,
                self._admission.rejected,
                self._open.expired,
                self._open.cancelled,
                self._open.degraded,
                self._admission.quality(self._open.unanswered),
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
            self._changed.wait_for(lambda: self._batcher.has_rows() or self._is_closed, seconds)
            return self._batcher.has_rows()

    def wait_until_answered(self, seconds: float | None = None) -> bool:
        """Waits until every accepted request is answered; returns false if not after this time."""
        if seconds is not None:
            seconds = finite_number("seconds", seconds)
        with self._changed:
            return self._open.none_left.wait_for(lambda: not self._open, seconds)

    def step(self) -> bool:
        """Runs one segment of one batch, or requests to their end; returns false if there was nothing to do.

        Several threads may call it at once, if the backend may be called so.
        """
        began = self._clock()
        with self._changed:
            ended = self._open.expire(began)
            work = self._started(self._batcher.next(began), began)
            self._computing += 1
        try:
            computing = self._compute(work, ended)
        finally:
            with self._changed:
                self._computing -= 1
        if work is None:
            return bool(ended)
        self._costs.observe_step(self._clock() - began - computing)
        return True

    def short_step(self, backend: Backend, seconds: float, backlog: float) -> bool:
        """Runs new rows to their end that are expected to take at most `seconds`; returns false if there was nothing to
        do, or not enough.

        For a thread that can compute between other work, such as an event loop.

        Args:
            backend: that of the scheduler with one thread of its own, see `Backend.context`.
            seconds: expected duration.
            backlog: seconds in which the workers are expected to compute the rows that wait, at least. With fewer rows,
                or while a worker waits for rows, they are left to the workers.
        """
        with self._changed:
            arrivals = self._batcher.queues[0]
            waiting = self._costs.seconds_to_the_end(arrivals.tokens) / self.workers
            if self._computing < self.workers or waiting < backlog:
                return False
            now = self._clock()
            ended = self._open.expire(now)
            max_tokens = min(self._costs.tokens_of_a_short_run(seconds), self.batch_tokens)
            work = self._started(self._batcher.next_short(int(max_tokens)), now)
        self._compute(work, ended, backend)
        return work is not None

    # ------------------------------------------------------------------ with the lock

    def _started(self, work: Work | None, now: float) -> Work | None:
        """Notes the start of the requests of rows that were taken; returns the rows."""
        for submission, _ in () if work is None else work.taken:
            if submission.started_at is None:
                self._admission.start(submission, now, self._open.unanswered)
        return work

    def _observe(self, work: Work, outcome: Outcome, seconds: float) -> None:
        """Updates counts and estimates of time with a run."""
        if outcome.left_at is not None:
            self._open.answered += outcome.left_at
        else:
            self._open.answered[work.exit_index] += outcome.count
        if work.is_short:  # on one thread: the estimates are those of the workers
            if outcome.left_at is not None:
                self._costs.observe_short_run(work.tokens(), seconds)
            return
        if outcome.left_at is not None:
            self._costs.observe_to_the_end(outcome.left_at.tolist(), work.tokens(), seconds)
        else:
            self._costs.observe(work.exit_index, len(work), outcome.count, work.tokens(), seconds)
        self._admission.observe(outcome.left, seconds)

    # ------------------------------------------------------------------ without the lock

    def _compute(self, work: Work | None, ended: Sequence[Submission] = (), backend: Backend | None = None) -> float:
        """Resolves submissions that have ended, and runs rows, by default on the scheduler's backend; returns the
        seconds of the run.

        If the thread is interrupted, the requests of these rows fail; without rows in a queue they would wait forever.
        """
        try:
            resolve_all(ended)
            return 0.0 if work is None else self._run(work, backend or self.backend)
        except BaseException:
            if work is not None:
                self._fail(work, SchedulerClosed("The computation of the request was interrupted."))
            raise

    def _run(self, work: Work, backend: Backend) -> float:
        """Runs rows to their next exit or to the end, and resolves the submissions that end; returns the seconds."""
        total = 0.0
        for part, outcome, started in work.attempts(backend, self._clock):
            finished = self._clock()
            total += finished - started
            if isinstance(outcome, Exception):
                self._fail(part, outcome)
                continue
            ended = self._count(part, outcome, finished - started)
            try:
                part.trace(started, finished)
                self._report(part, finished - started)
            finally:
                resolve_all(ended)
        return total

    def _count(self, work: Work, outcome: Outcome, seconds: float) -> list[Submission]:
        """Counts the rows that left, and queues the others; returns the submissions that have all answers."""
        ended: list[Submission] = []
        with self._changed:
            self._observe(work, outcome, seconds)
            for submission, rows in outcome.left:
                self._open.count(submission, rows, ended)
            if outcome.staying is not None and self._open.put_back(work.exit_index, outcome.staying, ended):
                self._changed.notify()
        return ended

    def _fail(self, work: Work, error: Exception) -> None:
        """Fails the submissions of a run that have no answer yet."""
        owners = dict.fromkeys(submission for submission, _ in work.by_owner())
        with self._changed:
            failed = [submission for submission in owners if not submission.is_over]
            for submission in failed:
                self._open.end(submission, error)
        resolve_all(failed)

    def _report(self, work: Work, seconds: float) -> None:
        """Calls the observer. Its errors concern no request."""
        observer = self.on_segment  # which another thread may remove
        if observer is not None:
            try:
                observer(work.exit_index, len(work), work.tokens(), seconds)
            except Exception:
                logger.exception("The observer of segments has failed.")

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
