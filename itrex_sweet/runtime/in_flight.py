"""Rows in flight: those that have no answer yet, and the queues in which they wait for the next segment."""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend, Hidden


@dataclass(frozen=True)
class InFlightRows:
    """Rows without an answer yet.

    Args:
        rows: (rows,) int64, indices in the caller's order.
        hidden: hidden states.
        state: state of the policy's criterion.
    """

    rows: np.ndarray
    hidden: Hidden
    state: criteria.State = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: np.ndarray) -> InFlightRows:
        """Returns the rows at these indices, in that order."""
        state = None if self.state is None else self.state[places]
        return InFlightRows(self.rows[places], self.hidden.select(places), state)

    def advance(self, backend: Backend, exit_index: int) -> InFlightRows:
        """Runs the segment from an exit to the next one."""
        return dataclasses.replace(self, hidden=backend.advance(exit_index, self.hidden))


def decide(
    backend: Backend,
    policy: Policy,
    exit_index: int,
    logits: np.ndarray,
    state: criteria.State,
    correctness_logit: criteria.CorrectnessLogit,
) -> tuple[np.ndarray, criteria.State, np.ndarray]:
    """Returns the confidence of each row at an exit, the new state of the criterion, and which rows leave."""
    confidences, state = backend.confidence(policy, exit_index, logits, state, correctness_logit)
    return confidences, state, criteria.may_leave(policy, exit_index, confidences)


def outputs_at(
    backend: Backend, policy: Policy, exit_index: int, in_flight: InFlightRows
) -> tuple[Answers, InFlightRows]:
    """Computes an exit's outputs for all rows; returns them as answers, and the rows with their new state."""
    logits, correctness_logit = backend.read_exit(exit_index, in_flight.hidden)
    confidences, state = backend.confidence(policy, exit_index, logits, in_flight.state, correctness_logit)
    answers = Answers(in_flight.rows, logits, np.full(len(in_flight), exit_index, dtype=np.int64), confidences)
    return answers, dataclasses.replace(in_flight, state=state)


def at_exit(
    backend: Backend, policy: Policy, exit_index: int, in_flight: InFlightRows
) -> tuple[Answers | None, InFlightRows]:
    """Probes an exit, unless it is switched off; returns the answers of the rows that leave, if any, and the other
    rows."""
    if criteria.is_switched_off(policy, exit_index):
        return None, in_flight
    outputs, in_flight = outputs_at(backend, policy, exit_index, in_flight)
    leaving = criteria.may_leave(policy, exit_index, outputs.confidence)
    count = int(np.count_nonzero(leaving))
    if count == 0:
        return None, in_flight
    if count == len(in_flight):
        return outputs, InFlightRows(in_flight.rows[:0], in_flight.hidden)
    return outputs.select(leaving), in_flight.select(np.flatnonzero(~leaving))


class WaitingRows:
    """First-in, first-out queue of rows of several batches that wait for the same segment."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._parts: deque[InFlightRows] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def rows(self) -> np.ndarray:
        """Returns the indices of the waiting rows, (rows,) int64."""
        return np.concatenate([part.rows for part in self._parts]) if self._parts else np.zeros(0, dtype=np.int64)

    def put(self, in_flight: InFlightRows) -> None:
        """Appends rows."""
        self._parts.append(in_flight)

    def take(self, count: int) -> InFlightRows:
        """Removes and returns the first `count` rows, or all if there are fewer."""
        taken: list[InFlightRows] = []
        while self._parts and count > 0:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part.select(np.arange(count, len(part))))
                part = part.select(np.arange(count))
            count -= len(part)
            taken.append(part)
        rows = np.concatenate([part.rows for part in taken])
        states = [part.state for part in taken if part.state is not None]
        state = np.concatenate(states) if states else None
        return InFlightRows(rows, self._backend.merge([part.hidden for part in taken]), state)
