"""Compares a line with the rows of a table, to decide whether it is a row of the same table."""

from __future__ import annotations

from collections.abc import Sequence

from itrex_sweet.data.spelling import is_number

_MAX_ROWS = 64  # rows to compare with
_MIN_LINES = 8  # lines with the right number of fields that are not a coincidence
_MIN_ROWS = 8  # rows from which a column with few values is treated as categorical


class RowComparison:
    """Compares rows with the first rows of a table: numbers in numeric columns, known values in categorical columns."""

    def __init__(self) -> None:
        self._rows: list[Sequence[str]] = []

    def note(self, cells: Sequence[str]) -> None:
        """Stores a row, if it is one of the first."""
        if len(self._rows) < _MAX_ROWS:
            self._rows.append(cells)

    def is_alike(self, cells: Sequence[str], columns: int) -> bool:
        """Returns whether a row fits the table; if no column decides, whether it has the right number of fields."""
        return len(cells) == columns and self._matches(self._rows, cells) is not False

    def all_alike(self, rows: Sequence[Sequence[str]], columns: int, another: Sequence[str]) -> bool:
        """Returns whether all rows fit the table, and a column or the number of rows confirms it.

        Args:
            rows: the cells of each row.
            columns: number of columns.
            another: one more row to compare with.
        """
        if not all(len(cells) == columns for cells in rows):
            return False
        matches = [self._matches([*self._rows, another], cells) for cells in rows[:_MAX_ROWS]]
        return all(matches) or (columns > 1 and len(rows) >= _MIN_LINES and False not in matches)

    @staticmethod
    def _matches(known: Sequence[Sequence[str]], cells: Sequence[str]) -> bool | None:
        """Returns whether a row fits; `None` if no column decides."""
        decided = False
        for place, cell in enumerate(cells):
            column = [row[place] for row in known]
            if column and all(map(is_number, column)):
                fits = is_number(cell)
            elif len(column) >= _MIN_ROWS and len(set(column)) <= len(column) / 2:
                fits = cell in column
            else:
                continue
            if not fits:
                return False
            decided = True
        return True if decided else None
