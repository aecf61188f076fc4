"""Admission control: which requests are accepted, in which order they are served, and at which quality under load."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from itrex_sweet.errors import Overloaded
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.degradation import Degradation
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request
from itrex_sweet.runtime.submission import Submission

# Seconds by which one level of priority, or a deadline, can bring a request forward. Bounded, so that none starves.
PRIORITY_SECONDS = 1.0
NO_DEADLINE_SECONDS = 10.0  # requests without a deadline count as due so long after their arrival

_MAX_POLICIES = 256  # in a cache
_PACE_MEMORY = 0.98  # weight of earlier runs in the estimate of the time per row, per run


class Admission:
    """Accepts requests while few rows wait, and lowers their quality before it refuses one. Used under the lock of the
    scheduler.

    Args:
        backend: runs the model.
        policy: of requests that have none, without load.
        max_waiting_rows, degradation: as of `Scheduler`.

    Attributes:
        workers: threads that compute.
        rejected: refused requests.
    """

    def __init__(self, backend: Backend, policy: Policy, max_waiting_rows: int, degradation: Degradation | None):
        self.policy = policy
        self.degradation = degradation
        self.workers = 1
        self.rejected = 0
        self._backend = backend
        self._max_waiting_rows = max_waiting_rows
        self._policies: dict[Policy, Policy] = {}
        self._numbers = 0
        self._busy = self._answered = 0.0  # seconds and rows, moving sums

    def quality(self, waiting: int) -> float:
        """Returns the quality that a request of one row would start with, 1 unless load lowers it.

        It follows the rows that wait now, since the level itself changes only when a request starts.

        Args:
            waiting: as of `accept`.
        """
        if self.degradation is None:
            return 1.0
        quality = self.degradation.preview(waiting + 1, self.seconds_per_row).quality
        return 1.0 if quality is None else quality

    @property
    def seconds_per_row(self) -> float:
        """Estimated seconds per row under the policy without load, a moving average over all workers."""
        return self._busy / max(self._answered, 1.0) / self.workers

    def accept(self, batch: TokenBatch, request: Request, now: float, waiting: int) -> Submission:
        """Returns the submission of a request.

        Args:
            now: seconds of the clock.
            waiting: rows without an answer.

        Raises:
            Overloaded: too many rows are waiting, and quality cannot fall.
        """
        rows = len(batch)
        is_full = rows and waiting and waiting + rows > self._max_waiting_rows
        if is_full and not self._can_degrade(waiting + rows):
            self.rejected += 1
            raise Overloaded(
                f"{waiting} rows are waiting, and {rows} more exceed the limit of {self._max_waiting_rows}; try again "
                "later.",
                waiting * self.seconds_per_row,
            )
        self._numbers += 1
        policy, due = self._for_task(request.policy), _due(request, now)
        return Submission(batch, request, policy, self._backend.num_labels, self._numbers, now, due)

    def start(self, submission: Submission, now: float, waiting: int) -> None:
        """Notes the start of a request, and chooses its policy by the load.

        Args:
            now, waiting: as of `accept`.
        """
        submission.started_at = now
        if self.degradation is None or submission.request.policy != self.policy:
            return
        level = self.degradation.update(waiting, self.seconds_per_row)
        if level.quality is not None:
            submission.policy, submission.cost = self._for_task(level.policy), level.cost
            submission.request = dataclasses.replace(submission.request, policy=level.policy, quality=level.quality)

    def observe(self, left: Sequence[tuple[Submission, int]], seconds: float) -> None:
        """Updates the estimate with a run.

        Args:
            left: submissions, and the number of their rows that left.
        """
        answered = sum(submission.cost * rows for submission, rows in left)
        self._busy = _PACE_MEMORY * self._busy + seconds
        self._answered = _PACE_MEMORY * self._answered + answered

    def _can_degrade(self, rows: int) -> bool:
        """Returns whether quality can still fall. Lowers it by the rows that wait, since requests start later than
        they arrive."""
        if self.degradation is None:
            return False
        self.degradation.update(rows, self.seconds_per_row)
        return not self.degradation.is_at_floor

    def _for_task(self, policy: Policy) -> Policy:
        """Returns the policy for the task of the model, the same object for equal policies."""
        found = self._policies.get(policy)
        if found is None:
            found = self._backend.for_task(policy)
            if len(self._policies) >= _MAX_POLICIES:
                self._policies = {}
            self._policies[policy] = found
        return found


def _due(request: Request, now: float) -> float:
    """Returns when a request that arrives now is due."""
    due = now + NO_DEADLINE_SECONDS
    if request.deadline is not None:
        due = max(min(due, request.deadline), now)
    return due - PRIORITY_SECONDS * request.priority
