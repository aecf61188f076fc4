"""Rows of several submissions that run through segments together, and the decision of each under its own policy."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.base import Backend, Hidden
from itrex_sweet.runtime.in_flight import decide
from itrex_sweet.runtime.submission import Submission


@dataclass(frozen=True)
class SharedRows:
    """Rows before the same exit, of any submissions.

    Args:
        owners: submission of each row.
        rows: (rows,) int64, index of each row in its submission.
        hidden: hidden states.
        states: state of each row's criterion, (numbers,) float32; `None` if no criterion has one.
    """

    owners: list[Submission]
    rows: np.ndarray
    hidden: Hidden
    states: list[np.ndarray | None] | None = None

    def __len__(self) -> int:
        return len(self.owners)

    @functools.cached_property
    def held_since(self) -> float:
        """Time at which the first of the submissions was embedded."""
        return min(0.0 if owner.started_at is None else owner.started_at for owner in self.owners)

    @functools.cached_property
    def earliest_deadline(self) -> float | None:
        """Earliest deadline of the submissions."""
        return min((owner.deadline for owner in self.owners if owner.deadline is not None), default=None)

    def select(self, places: np.ndarray) -> SharedRows:
        """Returns the rows at these indices, in that order."""
        indices = places.tolist()
        states = None if self.states is None else [self.states[place] for place in indices]
        owners = self.owners
        return SharedRows([owners[place] for place in indices], self.rows[places], self.hidden.select(places), states)

    def split(self, count: int) -> tuple[SharedRows, SharedRows]:
        """Returns the first `count` rows and the others."""
        return self.select(np.arange(count)), self.select(np.arange(count, len(self)))

    def living(self) -> SharedRows | None:
        """Returns the rows of submissions that are not over, or `None` if there are none."""
        if not any(owner.is_over for owner in self.owners):
            return self
        places = [place for place, owner in enumerate(self.owners) if not owner.is_over]
        return self.select(np.array(places)) if places else None

    @classmethod
    def merged(cls, backend: Backend, parts: Sequence[SharedRows]) -> SharedRows:
        """Concatenates rows that are before the same exit."""
        if len(parts) == 1:
            return parts[0]
        states = None
        if any(part.states is not None for part in parts):
            states = [state for part in parts for state in part.states or [None] * len(part)]
        return cls(
            [owner for part in parts for owner in part.owners],
            np.concatenate([part.rows for part in parts]),
            backend.merge([part.hidden for part in parts]),
            states,
        )


def pass_exit(backend: Backend, exit_index: int, rows: SharedRows) -> tuple[list[Submission], SharedRows | None]:
    """Probes an exit and records the outputs of rows that leave, each under the policy of its submission.

    Rows with a deadline are probed also where their policy has switched the exit off, and their outputs are recorded
    also if they stay, because they are the answer if the deadline passes before the next exit.

    Returns:
        the submission of each row that left, and the rows that stay, or `None` if all left.
    """
    groups = [
        (policy, places)
        for policy, has_deadline, places in _by_policy(rows.owners)
        if has_deadline or not criteria.is_switched_off(policy, exit_index)
    ]
    if not groups:
        return [], rows
    if len(groups) == 1:
        probed = groups[0][1]
    else:
        probed = np.concatenate([places for _, places in groups])
    covers_all = len(probed) == len(rows)
    in_order = covers_all and len(groups) == 1
    hidden = rows.hidden if in_order else rows.hidden.select(probed)
    logits, correctness_logit = backend.read_exit(exit_index, hidden)
    leaving = np.zeros(len(rows), dtype=bool)
    states = rows.states
    start = 0
    for policy, places in groups:
        part = slice(start, start + len(places))
        start += len(places)
        correctness = None if correctness_logit is None else correctness_logit[part]
        before = _stacked(rows.states, places) if criteria.is_stateful(policy) else None
        confidences, state, leaves = decide(backend, policy, exit_index, logits[part], before, correctness)
        if in_order:
            leaving = leaves
        else:
            leaving[places] = leaves
        if state is not None:
            states = states or [None] * len(rows)
            for place, own in zip(places.tolist(), state, strict=True):
                states[place] = own
        _record(rows, places, leaves, exit_index, logits[part], confidences)
    count = int(np.count_nonzero(leaving))
    if count == 0:
        return [], SharedRows(rows.owners, rows.rows, rows.hidden, states)
    if count == len(rows):
        return rows.owners, None
    left = [rows.owners[place] for place in np.flatnonzero(leaving).tolist()]
    staying = SharedRows(rows.owners, rows.rows, rows.hidden, states).select(np.flatnonzero(~leaving))
    return left, staying


def _by_policy(owners: list[Submission]) -> Iterator[tuple[Policy, bool, np.ndarray]]:
    """Yields the places of rows with the same policy, and whether they have a deadline."""
    first = owners[0]
    policy, has_deadline = first.policy, first.deadline is not None
    if all(owner.policy is policy and (owner.deadline is not None) is has_deadline for owner in owners):
        yield policy, has_deadline, np.arange(len(owners))
        return
    groups: dict[tuple[int, bool], list[int]] = {}
    for place, owner in enumerate(owners):
        groups.setdefault((id(owner.policy), owner.deadline is not None), []).append(place)
    for (_, has_deadline), places in groups.items():
        yield owners[places[0]].policy, has_deadline, np.array(places)


def _stacked(states: list[np.ndarray | None] | None, places: np.ndarray) -> criteria.State:
    """Returns the states of rows that have passed the same exits under one policy."""
    if states is None or states[places[0]] is None:
        return None
    return np.stack([states[place] for place in places.tolist()])


def _record(
    rows: SharedRows,
    places: np.ndarray,
    leaves: np.ndarray,
    exit_index: int,
    logits: np.ndarray,
    confidences: np.ndarray,
) -> None:
    """Records the outputs of one policy's rows that leave, or of all if they have a deadline.

    Args:
        places: (rows of the policy,) indices in `rows`; the other arrays have one element for each.
    """
    owners = rows.owners
    if owners[places[0]].deadline is None:
        recorded = np.flatnonzero(leaves)
        if not len(recorded):
            return
        if len(recorded) < len(places):
            places, logits, confidences = places[recorded], logits[recorded], confidences[recorded]
    own = rows.rows[places]
    indices = places.tolist()
    start = 0
    for end in range(1, len(indices) + 1):
        owner = owners[indices[start]]
        if end == len(indices) or owners[indices[end]] is not owner:
            owner.record(own[start:end], logits[start:end], exit_index, confidences[start:end])
            start = end
