"""The decision at an exit: which rows leave, each under the policy of its submission."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.shared_rows import SharedRows

_NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(eq=False)
class _Group:
    """Rows that are decided together.

    Args:
        policy: of these rows.
        has_deadline: whether the rows have a deadline.
        places: indices of the rows, ascending.
    """

    policy: Policy
    has_deadline: bool
    places: np.ndarray


def pass_exit(backend: Backend, exit_index: int, rows: SharedRows) -> tuple[np.ndarray, SharedRows | None]:
    """Probes an exit and records the outputs of rows that leave.

    Rows with a deadline are probed also where their policy has switched the exit off, and their outputs are recorded
    also if they stay, because they are the answer if the deadline passes before the next exit.

    Returns:
        places of the rows that left, ascending, and the rows that stay, or `None` if all left.
    """
    groups = [
        group
        for group in _by_policy(rows)
        if group.has_deadline or not criteria.is_switched_off(group.policy, exit_index)
    ]
    probed = groups[0].places if len(groups) == 1 else np.concatenate([_NO_ROWS, *(each.places for each in groups)])
    if not len(probed):
        return probed, rows
    are_all = len(groups) == 1 and len(probed) == len(rows)
    logits, correctness_logits = backend.read_exit(exit_index, rows.hidden if are_all else rows.hidden.select(probed))
    leaving = np.zeros(len(rows), dtype=bool)
    states: list[np.ndarray | None] | None = None  # a copy: a run that fails starts again from the same states
    start = 0
    for group in groups:
        places, part = group.places, slice(start, start + len(group.places))
        start = part.stop
        own_logits = logits[part]
        correctness = None if correctness_logits is None else correctness_logits[part]
        before = _stacked(rows.states, places) if criteria.is_stateful(group.policy) else None
        confidences, state = backend.confidence(group.policy, exit_index, own_logits, before, correctness)
        leaves = criteria.may_leave(group.policy, exit_index, confidences)
        if state is not None:
            states = states or list(rows.states or [None] * len(rows))
            for place, own in zip(places.tolist(), state, strict=True):
                states[place] = own
        if not group.has_deadline:
            chosen = leaves.nonzero()[0]
            _record(rows, places[chosen], exit_index, own_logits[chosen], confidences[chosen])
        else:
            _record(rows, places, exit_index, own_logits, confidences)
        if are_all:
            leaving = leaves
        else:
            leaving[places] = leaves
    left = leaving.nonzero()[0]
    if len(left) == len(rows):
        return left, None
    if states is not None:
        rows = dataclasses.replace(rows, states=states)
    return left, rows.select((~leaving).nonzero()[0]) if len(left) else rows


def _by_policy(rows: SharedRows) -> list[_Group]:
    """Returns rows with the same policy, and those with a deadline apart."""
    first = rows.front
    policy, has_deadline = first.policy, first.deadline is not None
    if all(owner.policy is policy and (owner.deadline is not None) is has_deadline for owner in rows.owners):
        return [_Group(policy, has_deadline, np.arange(len(rows)))]
    kinds = [(id(owner.policy), owner.deadline is not None) for owner in rows.owners]
    distinct = dict(zip(kinds, rows.owners, strict=True))
    number = np.array([list(distinct).index(kind) for kind in kinds])[rows.owner_index]
    return [
        _Group(owner.policy, owner.deadline is not None, (number == place).nonzero()[0])
        for place, owner in enumerate(distinct.values())
    ]


def _stacked(states: Sequence[np.ndarray | None] | None, places: np.ndarray) -> criteria.State:
    """Returns the states of rows that have passed the same exits under one policy."""
    if states is None or states[places[0]] is None:
        return None
    return np.stack([states[place] for place in places.tolist()])


def _record(rows: SharedRows, places: np.ndarray, exit_index: int, logits: np.ndarray, confidences: np.ndarray) -> None:
    """Records the outputs of rows with their submissions.

    Args:
        places: (recorded rows,) indices in `rows`, ascending; `logits` and `confidences` have one element for each.
    """
    own = rows.rows[places]
    for owner, part in rows.runs(places):
        owner.record(own[part], logits[part], exit_index, confidences[part])
