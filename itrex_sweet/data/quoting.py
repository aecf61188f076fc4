"""Parses quoted records of CSV and TSV files, also with misplaced quotation marks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from itrex_sweet.data.lines import MAX_LINE, without_end

QUOTE = '"'
_NEVER_CLOSED = "unexpected end of data: the quotation mark that opens here is never closed"


class Lookahead:
    """An iterator over lines that can be read before they are consumed."""

    def __init__(self, lines: Iterable[str]):
        self._lines = iter(lines)
        self._seen: list[str] = []
        self._start = 0  # index of the next line to consume
        self.number = 1  # line number of the next line to consume

    def __getitem__(self, offset: int) -> str | None:
        while len(self._seen) <= self._start + offset:
            line = next(self._lines, None)
            if line is None:
                return None
            self._seen.append(line)
        return self._seen[self._start + offset]

    def take(self, count: int) -> list[str]:
        """Consumes the next lines and returns them."""
        taken = self.seen(count)
        self.number += len(taken)
        self._start += len(taken)
        if 2 * self._start >= len(self._seen):
            del self._seen[: self._start]
            self._start = 0
        return taken

    def seen(self, count: int) -> list[str]:
        """Returns the next lines, as far as they have been read, without consuming them."""
        return self._seen[self._start : self._start + count]


@dataclass
class Record:
    """A record as its quotation marks define it.

    Args:
        cells: its fields.
        count: number of physical lines.
        opened: line, counted from the first of the record, on which the faulty field opens.
        fault: what is wrong with the quotation marks, if anything.
        needed: a quoted field is empty, or contains a separator, a line end or a quotation mark.
    """

    cells: list[str] = field(default_factory=list)
    count: int = 1
    opened: int = 0
    fault: str | None = None
    needed: bool = False


def scan_record(ahead: Lookahead, separator: str) -> Record:
    """Parses the next record, up to the probable end of a faulty field; consumes no line.

    Args:
        ahead: the lines.
        separator: separator of fields.
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


def _quoted(ahead: Lookahead, separator: str, offset: int, place: int) -> tuple[str, int, int, str | None]:
    """Parses a quoted field after its opening mark; returns its text, the line and position after it, and its fault."""
    parts: list[str] = []
    fault, length = None, 0
    line = ahead[offset] or ""
    start = place
    while True:
        mark = line.find(QUOTE, place)
        if mark < 0:
            parts.append(line[start:])
            length += len(line)
            following = ahead[offset + 1] if length <= MAX_LINE else None
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
