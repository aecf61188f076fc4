"""Judges by rows that were read before if a line could be a row of the same table."""

from __future__ import annotations

from collections.abc import Sequence

from itrex_sweet.data.spelling import is_number

_KEPT = 64  # rows to compare with
_MANY = 8  # lines that have as many fields as a row by chance
_CATEGORIES = 8  # rows at least, before a column's values are taken for all that it holds


class Resemblance:
    """Remembers some rows, and says of others whether they are alike: a number where those have numbers, a known value
    where those have few."""

    def __init__(self) -> None:
        self._rows: list[Sequence[str]] = []

    def note(self, cells: Sequence[str]) -> None:
        """Remembers a row, if it is one of the first."""
        if len(self._rows) < _KEPT:
            self._rows.append(cells)

    def is_alike(self, cells: Sequence[str], columns: int) -> bool:
        """True if a row could be one of these; where nothing tells, whether it has as many fields."""
        return len(cells) == columns and self._tells(self._rows, cells) is not False

    def all_alike(self, rows: Sequence[Sequence[str]], columns: int, another: Sequence[str]) -> bool:
        """True if all rows could be, and some column, or their number, tells so.

        Args:
            rows: of cells.
            columns: cells of each.
            another: a row to compare with as well.
        """
        if not all(len(cells) == columns for cells in rows):
            return False
        told = [self._tells([*self._rows, another], cells) for cells in rows[:_KEPT]]
        return all(told) or (columns > 1 and len(rows) >= _MANY and False not in told)

    @staticmethod
    def _tells(known: Sequence[Sequence[str]], cells: Sequence[str]) -> bool | None:
        """True if a row is alike; `None` where no column tells."""
        telling = False
        for place, cell in enumerate(cells):
            column = [row[place] for row in known]
            if column and all(map(is_number, column)):
                fits = is_number(cell)
            elif len(column) >= _CATEGORIES and len(set(column)) <= len(column) / 2:
                fits = cell in column
            else:
                continue
            if not fits:
                return False
            telling = True
        return True if telling else None
