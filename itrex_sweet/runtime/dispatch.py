"""The choice of the rows that run next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from itrex_sweet.runtime.queues import ArrivalQueue, ExitQueue
from itrex_sweet.runtime.step_costs import StepCosts

DEFAULT_MAX_HOLD_SECONDS = 0.01


class Dispatch(Protocol):
    """Chooses the next run."""

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        """Returns the index of the exit to run to, `None` if no row waits.

        Args:
            arrivals: rows for exit 0.
            waiting: rows for exit 1 and deeper.
            now: seconds of the scheduler's clock.
        """

    def runs_to_the_end(self, rows: int, tokens: int, batch_size: int, others_wait: bool) -> bool:
        """Returns whether new rows run through all exits in one call, which other rows cannot join.

        Args:
            rows, tokens: that would run.
            batch_size: maximum number of rows per run.
            others_wait: whether there are rows that could join at a later exit.
        """


class WholeBatches:
    """Runs every batch to its end before the next one starts, as servers without early exit do; for comparisons."""

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        queues = [arrivals, *waiting]
        return max((exit_index for exit_index, queue in enumerate(queues) if queue.rows), default=None)

    def runs_to_the_end(self, rows: int, tokens: int, batch_size: int, others_wait: bool) -> bool:
        return True


class BreadthFirst:
    """Runs shallow exits first, for one caller that waits for all rows.

    Args:
        refill: rows that are collected at an exit before its segment runs, as long as other rows are not embedded. The
            hidden states of more rows than that are not kept.
        exit_by_exit: whether every row passes an exit before any runs the next segment.
    """

    def __init__(self, refill: int, exit_by_exit: bool = False):
        self.refill = refill
        self.exit_by_exit = exit_by_exit

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        if not self.exit_by_exit:
            for exit_index, queue in enumerate(waiting, start=1):
                if queue.rows >= self.refill:
                    return exit_index
        return next((exit_index for exit_index, queue in enumerate([arrivals, *waiting]) if queue.rows), None)

    def runs_to_the_end(self, rows: int, tokens: int, batch_size: int, others_wait: bool) -> bool:
        return False


class MostAnswers:
    """Runs the rows that give most answers per second, unless a row has been passed over for too long.

    Few survivors of a batch therefore wait for those of the next one as long as new rows give more answers in the same
    time, and run at once if they are many or no other rows wait. Where regrouping survivors saves less than its steps
    cost, and the run is short, new rows run through all exits in one call of the backend. An embedded row is passed
    over for at most `max_hold_seconds`; rows near their deadline are not passed over. Higher priority runs first.

    Args:
        costs: the estimate of time.
        max_hold_seconds: the bound; also the maximum estimated duration of a run through all exits at once, which other
            rows cannot join.
    """

    def __init__(self, costs: StepCosts, max_hold_seconds: float = DEFAULT_MAX_HOLD_SECONDS):
        self.costs = costs
        self.max_hold_seconds = max_hold_seconds

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        queues = [arrivals, *waiting]
        filled = [exit_index for exit_index, queue in enumerate(queues) if queue.rows]
        if len(filled) <= 1:
            return filled[0] if filled else None
        overdue = [exit_index for exit_index in filled if self._is_overdue(queues[exit_index], now)]
        if overdue:
            return _due_first(queues, overdue)
        return max(filled, key=lambda exit_index: (self._priority(queues[exit_index]), *self._rate(exit_index, queues)))

    def runs_to_the_end(self, rows: int, tokens: int, batch_size: int, others_wait: bool) -> bool:
        if self.costs.seconds_to_the_end(tokens) > self.max_hold_seconds:
            return False
        return not others_wait or self.costs.saved_by_regrouping(rows, batch_size) <= 0.0

    def _is_overdue(self, queue: ArrivalQueue | ExitQueue, now: float) -> bool:
        since, deadline = queue.held_since, queue.earliest_deadline
        return (since is not None and now - since >= self.max_hold_seconds) or (
            deadline is not None and deadline - now <= self.max_hold_seconds
        )

    @staticmethod
    def _priority(queue: ArrivalQueue | ExitQueue) -> int:
        front = queue.front
        return 0 if front is None else front.request.priority

    def _rate(self, exit_index: int, queues: Sequence[ArrivalQueue | ExitQueue]) -> tuple[float, int]:
        """Returns the expected answers per second, and the exit, which decides between equal rates."""
        queue = queues[exit_index]
        seconds = self.costs.seconds(exit_index, queue.tokens)
        answers = queue.rows * self.costs.share_leaving(exit_index)
        return (answers / seconds if seconds > 0.0 else float("inf"), exit_index)


def _due_first(queues: Sequence[ArrivalQueue | ExitQueue], exits: Sequence[int]) -> int | None:
    """Returns the exit whose first row is due first, the deepest of equals; `None` if all queues are empty."""
    best, found = None, None
    for exit_index in reversed(exits):
        front = queues[exit_index].front
        if front is not None and (best is None or front < best):
            best, found = front, exit_index
    return found
