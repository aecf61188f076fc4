"""Records as quotation marks divide lines, whether or not the marks are in their places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from itrex_sweet.data.lines import LONGEST_LINE, without_end

QUOTE = '"'
_NEVER_CLOSED = "unexpected end of data: a quotation mark opens here and is never closed"


class Ahead:
    """Lines, some of which have been looked at before they are taken."""

    def __init__(self, lines: Iterable[str]):
        self._lines = iter(lines)
        self._seen: list[str] = []
        self._start = 0  # of those not taken
        self.number = 1  # of the next line

    def __getitem__(self, offset: int) -> str | None:
        while len(self._seen) <= self._start + offset:
            line = next(self._lines, None)
            if line is None:
                return None
            self._seen.append(line)
        return self._seen[self._start + offset]

    def take(self, count: int) -> list[str]:
        """The next lines, which are then gone."""
        taken = self.seen(count)
        self.number += len(taken)
        self._start += len(taken)
        if 2 * self._start >= len(self._seen):
            del self._seen[: self._start]
            self._start = 0
        return taken

    def seen(self, count: int) -> list[str]:
        """The next lines, of those that were looked at."""
        return self._seen[self._start : self._start + count]


@dataclass
class Record:
    """One record as quotation marks divide it.

    Args:
        cells: its fields.
        count: physical lines that it covers.
        opened: line, from the record's first, on which the field with a fault is opened.
        fault: what is wrong with the quotation marks, if anything.
        needed: whether a quoted field holds what must be quoted: a separator, a line end, a mark, or nothing.
    """

    cells: list[str] = field(default_factory=list)
    count: int = 1
    opened: int = 0
    fault: str | None = None
    needed: bool = False


def scanned(ahead: Ahead, separator: str) -> Record:
    """The next record as its quotation marks divide it, to where a faulty field probably ends.

    Args:
        ahead: lines, of which none are taken.
        separator: between fields.
    """
    record, offset, place = Record(), 0, 0
    line = ahead[0] or ""
    while True:
        if line[place : place + 1] != QUOTE:
            end = line.find(separator, place)
            record.cells.append(without_end(line[place:]) if end < 0 else line[place:end])
        else:
            cell, last, end, fault = _quoted(ahead, separator, offset, place + 1)
            if record.fault is None and fault is not None:
                record.opened, record.fault = offset, fault
            offset = last
            record.count = offset + 1
            line = ahead[offset] or ""
            record.cells.append(cell)
            record.needed |= not cell or any(part in cell for part in (QUOTE, separator, "\n", "\r"))
            if line[end : end + 1] != separator:
                return record
        if end < 0:
            return record
        place = end + 1


def _quoted(ahead: Ahead, separator: str, offset: int, place: int) -> tuple[str, int, int, str | None]:
    """A quoted field from behind its opening mark: its text, the line and place behind it, and what is wrong."""
    parts: list[str] = []
    fault, length = None, 0
    line = ahead[offset] or ""
    start = place
    while True:
        mark = line.find(QUOTE, place)
        if mark < 0:
            parts.append(line[start:])
            length += len(line)
            following = ahead[offset + 1] if length <= LONGEST_LINE else None
            if following is None:
                return "", offset, len(line), fault or _NEVER_CLOSED
            line, offset, start, place = following, offset + 1, 0, 0
        elif line[mark + 1 : mark + 2] == QUOTE:
            place = mark + 2
        elif line[mark + 1 : mark + 2] in ("", separator, "\r", "\n"):
            parts.append(line[start:mark])
            return "".join(parts).replace(QUOTE * 2, QUOTE), offset, mark + 1, fault
        else:
            fault = "a quotation mark inside a field that opens here is not doubled"
            place = mark + 1
