"""The choice of the rows that run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from itrex_sweet.arguments import non_negative_number, positive_number, whole_number
from itrex_sweet.runtime.queues import ArrivalQueue, ExitQueue
from itrex_sweet.runtime.step_costs import StepCosts

DEFAULT_MAX_HOLD_SECONDS = 0.01
DEFAULT_MAX_RUN_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """Size of a run.

    Args:
        max_tokens: beside the scheduler's own limit; one row may have more.
        to_the_end: whether new rows run through all exits in one call, which other rows cannot join.
    """

    max_tokens: float = float("inf")
    to_the_end: bool = False


_ONE_SEGMENT, _TO_THE_END = Plan(), Plan(to_the_end=True)


class Dispatch(Protocol):
    """Chooses the next run."""

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        """Returns the index of the exit to run to, `None` if no row waits.

        Args:
            arrivals: rows for exit 0.
            waiting: rows for exit 1 and deeper.
            now: seconds of the scheduler's clock.
        """

    def plan(self, exit_index: int, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], batch_size: int) -> Plan:
        """Returns the size of the run to an exit.

        Args:
            exit_index: as of `choose`.
            batch_size: maximum number of rows per run.
        """


class WholeBatches:
    """Runs every batch to its end before the next one starts, as servers without early exit do; for comparisons."""

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        queues = [arrivals, *waiting]
        return max((exit_index for exit_index, queue in enumerate(queues) if queue.rows), default=None)

    def plan(self, exit_index: int, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], batch_size: int) -> Plan:
        return Plan(to_the_end=exit_index == 0)


class BreadthFirst:
    """Runs shallow exits first, for one caller that waits for all rows.

    Args:
        refill: rows that are collected at an exit before its segment runs, as long as other rows are not embedded. The
            hidden states of more rows than that are not kept. With 1, new rows run to the end, since none waits.
        exit_by_exit: whether every row passes an exit before any runs the next segment.

    Attributes:
        expects_more: whether rows will arrive that the waiting ones are to be collected with.
    """

    def __init__(self, refill: int, exit_by_exit: bool = False):
        self.refill = whole_number("refill", refill, minimum=1)
        self.exit_by_exit = exit_by_exit
        self.expects_more = False

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        if not self.exit_by_exit:
            for exit_index, queue in enumerate(waiting, start=1):
                if queue.rows >= self.refill:
                    return exit_index
        if self.expects_more:
            return 0 if arrivals.rows else None
        return next((exit_index for exit_index, queue in enumerate([arrivals, *waiting]) if queue.rows), None)

    def plan(self, exit_index: int, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], batch_size: int) -> Plan:
        return _TO_THE_END if exit_index == 0 and self.refill == 1 and not self.exit_by_exit else _ONE_SEGMENT


class MostAnswers:
    """Runs the rows that give most answers per second, unless a row has been passed over for too long.

    A run takes at most about `max_run_seconds`, so that rows which arrive meanwhile start soon, or longer if more than
    3 % of a shorter run's time would not depend on its tokens. New rows run through all exits in one call of the
    backend if they get to the end in this time, unless regrouping their survivors saves more than its steps cost.
    Longer rows run segment by segment. Few survivors of a batch wait for those of the next one as long as new rows
    give more answers in the same time, and run at once if they are many or no other rows wait. An embedded row is
    passed over for at most `max_hold_seconds`; rows near their deadline are not passed over. Higher priority runs
    first.

    Args:
        costs: the estimate of time.
        max_hold_seconds, max_run_seconds: the bounds.
    """

    def __init__(
        self,
        costs: StepCosts,
        max_hold_seconds: float = DEFAULT_MAX_HOLD_SECONDS,
        max_run_seconds: float = DEFAULT_MAX_RUN_SECONDS,
    ):
        self.costs = costs
        self.max_hold_seconds = non_negative_number("max_hold_seconds", max_hold_seconds)
        self.max_run_seconds = positive_number("max_run_seconds", max_run_seconds)

    def choose(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], now: float) -> int | None:
        queues = [arrivals, *waiting]
        filled = [exit_index for exit_index, queue in enumerate(queues) if queue.rows]
        if len(filled) <= 1:
            return filled[0] if filled else None
        overdue = [exit_index for exit_index in filled if self._is_overdue(queues[exit_index], now)]
        if overdue:
            return _due_first(queues, overdue)
        return max(filled, key=lambda exit_index: (self._priority(queues[exit_index]), *self._rate(exit_index, queues)))

    def plan(self, exit_index: int, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], batch_size: int) -> Plan:
        seconds = self.max_run_seconds
        if exit_index == 0 and arrivals.front is not None:
            max_tokens = self.costs.tokens_to_the_end(seconds)
            is_short = arrivals.front.next_length() <= max_tokens
            if is_short and not self._regroups(arrivals, waiting, batch_size):
                return Plan(max_tokens, to_the_end=True)
        return Plan(self.costs.tokens_of_a_run(exit_index, seconds))

    def _regroups(self, arrivals: ArrivalQueue, waiting: Sequence[ExitQueue], batch_size: int) -> bool:
        """Returns whether survivors of new rows had better wait for others at a later exit."""
        if arrivals.rows <= batch_size and not any(queue.rows for queue in waiting):
            return False  # no rows could join them
        return self.costs.saved_by_regrouping(min(arrivals.rows, batch_size), batch_size) > 0.0

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
