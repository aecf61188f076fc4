"""Rows that are not answered yet: at an exit some leave and the others wait for the next segment."""

from __future__ import annotations

import dataclasses
from collections import deque
from dataclasses import dataclass

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend, Hidden


@dataclass(frozen=True)
class OnTheWay:
    """Rows that are not answered yet.

    Args:
        rows: (rows,) int64, the caller's numbering.
        hidden: their states.
        memory: what the policy's criterion remembers of them.
    """

    rows: np.ndarray
    hidden: Hidden
    memory: criteria.Memory = None

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: np.ndarray) -> OnTheWay:
        """The rows at these places, in that order."""
        memory = None if self.memory is None else self.memory[places]
        return OnTheWay(self.rows[places], self.hidden.select(places), memory)

    def advance(self, backend: Backend, exit_index: int) -> OnTheWay:
        """The same rows, from before an exit's last layer to before the next one's."""
        return dataclasses.replace(self, hidden=backend.advance(exit_index, self.hidden))


def said_at(backend: Backend, policy: Policy, exit_index: int, on_way: OnTheWay) -> tuple[Answers, OnTheWay]:
    """What an exit says of all rows, whoever may leave; and the rows, with what is remembered of them."""
    logits, certainty = backend.read_exit(exit_index, on_way.hidden)
    confidences, memory = backend.confidence(policy, exit_index, logits, on_way.memory, certainty)
    answers = Answers(on_way.rows, logits, np.full(len(on_way), exit_index, dtype=np.int64), confidences)
    return answers, dataclasses.replace(on_way, memory=memory)


def at_exit(backend: Backend, policy: Policy, exit_index: int, on_way: OnTheWay) -> tuple[Answers | None, OnTheWay]:
    """Probes an exit, if it is not switched off: who is answered there, if anyone, and who goes on."""
    if criteria.is_switched_off(policy, exit_index):
        return None, on_way
    said, on_way = said_at(backend, policy, exit_index, on_way)
    leaving = criteria.may_leave(policy, exit_index, said.confidence)
    count = int(np.count_nonzero(leaving))
    if count == 0:
        return None, on_way
    if count == len(on_way):
        return said, OnTheWay(on_way.rows[:0], on_way.hidden)
    return said.select(leaving), on_way.select(np.flatnonzero(~leaving))


class WaitingRows:
    """Survivors of several batches at one exit, first come, first served."""

    def __init__(self, backend: Backend):
        self._backend = backend
        self._parts: deque[OnTheWay] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def rows(self) -> np.ndarray:
        """(rows,) int64: who waits."""
        return np.concatenate([part.rows for part in self._parts]) if self._parts else np.zeros(0, dtype=np.int64)

    def put(self, on_way: OnTheWay) -> None:
        """Behind those who wait already."""
        self._parts.append(on_way)

    def take(self, count: int) -> OnTheWay:
        """The first `count` rows, or all there are."""
        taken: list[OnTheWay] = []
        while self._parts and count > 0:
            part = self._parts.popleft()
            if len(part) > count:
                self._parts.appendleft(part.select(np.arange(count, len(part))))
                part = part.select(np.arange(count))
            count -= len(part)
            taken.append(part)
        rows = np.concatenate([part.rows for part in taken])
        memories = [part.memory for part in taken if part.memory is not None]
        memory = np.concatenate(memories) if memories else None
        return OnTheWay(rows, self._backend.merge([part.hidden for part in taken]), memory)
