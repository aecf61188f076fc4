"""Rows of several submissions that run through segments together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.runtime.backends.base import Backend, Hidden
from itrex_sweet.runtime.submission import Submission


@dataclass(eq=False)
class SharedRows:
    """Rows before the same exit, of any submissions.

    Rows of a submission that follow one another share an element of `owners`, so that most work is done once per
    submission and not once per row.

    Args:
        owners: submissions in the order of their rows; each has at least one.
        owner_index: (rows,) int64, submission of each row as an index in `owners`, ascending.
        rows: (rows,) int64, index of each row in its submission.
        lengths: (rows,) int64, number of tokens of each row.
        hidden: hidden states.
        states: state of each row's criterion, (numbers,) float32; `None` if no criterion has one.
    """

    owners: list[Submission]
    owner_index: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray
    hidden: Hidden
    states: list[np.ndarray | None] | None = None
    _tokens: int | None = dataclasses.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, taken: Sequence[tuple[Submission, np.ndarray]], lengths: np.ndarray, hidden: Hidden) -> SharedRows:
        """Returns rows of submissions.

        Args:
            taken: submissions, and their rows as `Submission.take` returns them.
            lengths: number of tokens of each row.
            hidden: states of these rows.
        """
        if len(taken) == 1:
            owner, rows = taken[0]
            return cls([owner], np.zeros(len(rows), np.int64), rows + owner.first, lengths, hidden)
        index = np.repeat(np.arange(len(taken)), [len(rows) for _, rows in taken])
        numbers = [rows + owner.first if owner.first else rows for owner, rows in taken]
        return cls([owner for owner, _ in taken], index, np.concatenate(numbers), lengths, hidden)

    @property
    def front(self) -> Submission:
        """The submission of the first row."""
        return self.owners[0]

    @functools.cached_property
    def held_since(self) -> float:
        """Time at which the first of the submissions was embedded."""
        return min(0.0 if owner.started_at is None else owner.started_at for owner in self.owners)

    @functools.cached_property
    def earliest_deadline(self) -> float | None:
        """Earliest deadline of the submissions."""
        return min((owner.deadline for owner in self.owners if owner.deadline is not None), default=None)

    @property
    def tokens(self) -> int:
        """Number of tokens of all rows."""
        if self._tokens is None:
            self._tokens = int(self.lengths.sum())
        return self._tokens

    def runs(self, places: np.ndarray) -> Iterator[tuple[Submission, slice]]:
        """Yields each submission that has rows among some, and the slice of these.

        Args:
            places: indices of rows, ascending.
        """
        count = len(places)
        if not count:
            return
        if len(self.owners) == 1:
            yield self.owners[0], slice(0, count)
            return
        index = self.owner_index[places]
        starts = [0, *((index[1:] != index[:-1]).nonzero()[0] + 1).tolist()]
        for place, start, end in zip(index[starts].tolist(), starts, [*starts[1:], count], strict=True):
            yield self.owners[place], slice(start, end)

    def by_owner(self, places: np.ndarray | None = None) -> list[tuple[Submission, np.ndarray]]:
        """Returns each submission and the indices of its rows.

        Args:
            places: of the rows, ascending; all by default.
        """
        places = np.arange(len(self)) if places is None else places
        rows = self.rows[places]
        return [(owner, rows[part]) for owner, part in self.runs(places)]

    def select(self, places: np.ndarray) -> SharedRows:
        """Returns the rows at these indices, at least one, ascending."""
        states = None if self.states is None else [self.states[place] for place in places.tolist()]
        owners = self.owners
        if len(owners) == 1:
            index = self.owner_index[: len(places)]
        else:
            index = self.owner_index[places]
            is_first = np.ones(len(index), dtype=bool)
            np.not_equal(index[1:], index[:-1], out=is_first[1:])
            first = index[is_first].tolist()
            if len(first) < len(owners):
                owners = [owners[place] for place in first]
                index = np.cumsum(is_first) - 1
        return SharedRows(owners, index, self.rows[places], self.lengths[places], self.hidden.select(places), states)

    def with_hidden(self, hidden: Hidden) -> SharedRows:
        """Returns the rows with other hidden states."""
        return SharedRows(self.owners, self.owner_index, self.rows, self.lengths, hidden, self.states)

    def split(self, count: int) -> tuple[SharedRows, SharedRows]:
        """Returns the first `count` rows and the others."""
        return self.select(np.arange(count)), self.select(np.arange(count, len(self)))

    def without(
        self, is_removed: Callable[[Submission], bool]
    ) -> tuple[SharedRows | None, list[tuple[Submission, np.ndarray]]]:
        """Removes the rows of some submissions.

        Returns:
            the other rows, or `None` if there are none, and the removed ones by submission.
        """
        removed = [is_removed(owner) for owner in self.owners]
        if not any(removed):
            return self, []
        if all(removed):
            return None, self.by_owner()
        mask = np.array(removed)[self.owner_index]
        return self.select((~mask).nonzero()[0]), self.by_owner(mask.nonzero()[0])

    @classmethod
    def merged(cls, backend: Backend, parts: Sequence[SharedRows]) -> SharedRows:
        """Concatenates rows that are before the same exit."""
        if len(parts) == 1:
            return parts[0]
        states = None
        if any(part.states is not None for part in parts):
            states = [state for part in parts for state in part.states or [None] * len(part)]
        return cls(
            *_joined_owners(parts),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.lengths for part in parts]),
            backend.merge([part.hidden for part in parts]),
            states,
        )


def _joined_owners(parts: Sequence[SharedRows]) -> tuple[list[Submission], np.ndarray]:
    """Returns `owners` and `owner_index` of concatenated rows."""
    owners = list(parts[0].owners)
    index = [parts[0].owner_index]
    for part in parts[1:]:
        is_shared = owners[-1] is part.owners[0]
        index.append(part.owner_index + (len(owners) - is_shared))
        owners += part.owners[is_shared:]
    if len(owners) == 1:
        return owners, np.zeros(sum(map(len, index)), np.int64)
    return owners, np.concatenate(index)
