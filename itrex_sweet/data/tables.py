"""CSV and TSV: records, with a quotation mark that is out of place named by the line on which it stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from itrex_sweet.data.line import Line
from itrex_sweet.data.lines import LONGEST_LINE, without_end
from itrex_sweet.data.quoting import QUOTE, Ahead, Record, scanned
from itrex_sweet.data.resemblance import Resemblance
from itrex_sweet.errors import InputError

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_ENCLOSED = 4  # lines that look like rows, from which on a text in proper quotes is doubted
_LOOKED_AT = 200  # of those lines
_MOSTLY = 0.8  # share of the lines behind a quotation mark that must look like rows for the mark to be a stray one


def csv_records(lines: Iterable[str], source: str) -> Iterator[Line]:
    """Records of a comma-separated file, quoted as in RFC 4180."""
    return _Table(lines, source, ",", may_be_bare=False).records()


def tsv_records(lines: Iterable[str], source: str) -> Iterator[Line]:
    """Records of a tab-separated file, whose quotation marks quote (as pandas writes them) or stand for themselves
    (as in GLUE): `_Table._is_quoted` says which.
    """
    return _Table(lines, source, "\t", may_be_bare=True).records()


class _Table:
    """A reader of one file.

    Args:
        lines: physical lines.
        source: for messages.
        separator: between fields.
        may_be_bare: quotation marks may stand for themselves.
    """

    def __init__(self, lines: Iterable[str], source: str, separator: str, may_be_bare: bool):
        self.source, self.separator, self.may_be_bare = source, separator, may_be_bare
        self.ahead = Ahead(lines)
        self.header: list[str] = []
        self.rows = Resemblance()
        self.quotes: bool | None = None if may_be_bare else True  # `None` until a record has shown it
        self.quotes_all = False  # also fields that need no quotes

    def records(self) -> Iterator[Line]:
        """Records below the header.

        Raises:
            InputError: the header cannot be one.
        """
        while (line := self.ahead[0]) is not None:
            if not without_end(line):
                self.ahead.take(1)
            elif not self.header:
                self._read_header()
            else:
                yield self._next_record(line)

    def _here(self, offset: int = 0) -> str:
        return f"{self.source}, line {self.ahead.number + offset}"

    # ------------------------------------------------------------------ the header

    def _read_header(self) -> None:
        here, record = self._here(), scanned(self.ahead, self.separator)
        bare = without_end(self.ahead[0] or "").split(self.separator)
        if self.may_be_bare and (record.fault is not None or record.count > 1):
            record = Record(bare)
        if record.fault is not None:
            raise InputError(f"{here}: {record.fault}, in the header.")
        self.quotes_all = all(cell.startswith(QUOTE) for cell in bare)
        text = "".join(self.ahead.take(record.count))
        if "\0" in text:
            raise InputError(f"{here}: a NUL character in the header: is this a text file in UTF-8?")
        header = [cell.strip() for cell in record.cells]
        self._refuse_another_separator(here, header)
        named = [name for name in header if name]
        if len(set(named)) < len(named):
            raise InputError(f"{here}: column names repeat: {', '.join(header)}.")
        self.header = header

    def _refuse_another_separator(self, here: str, header: list[str]) -> None:
        if len(header) > 1:
            return
        ours = _SEPARATORS[self.separator]
        for other, called in _SEPARATORS.items():
            parts = header[0].split(other)
            if other == self.separator or len(parts) < 2 or f"{other} " in header[0]:
                continue
            if all(parts) or header[0].startswith("sep="):
                read_as = {"\t": ", or read the file as TSV", ",": ", or read the file as CSV"}.get(other, "")
                raise InputError(
                    f"{here}: the header {header[0]!r} holds {called} and no {ours}. Separate the fields by {ours}"
                    f"{read_as}."
                )

    # ------------------------------------------------------------------ records

    def _next_record(self, line: str) -> Line:
        bare = self._cells_alone(line)
        if self.quotes is False or QUOTE not in line or not any(cell.startswith(QUOTE) for cell in bare):
            return self._line(Record(bare))
        record = scanned(self.ahead, self.separator)
        if self.may_be_bare and not self._is_quoted(record, bare):
            return self._line(Record(bare))
        return self._line(self._confined(record))

    def _line(self, record: Record) -> Line:
        """Takes a record's lines, and gives it or what is wrong with it."""
        place = self._here(record.opened if record.fault is not None else 0)
        text = "".join(self.ahead.take(record.count))
        if record.fault is not None:
            return Line(place, {}, record.fault)
        if "\0" in text:
            return Line(place, {}, "a NUL character: is this a text file in UTF-8?")
        if len(record.cells) != len(self.header):
            return Line(place, {}, f"{len(record.cells)} fields, and the header has {len(self.header)}")
        self.rows.note(record.cells)
        return Line(place, dict(zip(self.header, record.cells, strict=True)))

    def _is_quoted(self, record: Record, bare: list[str]) -> bool:
        """True if a TSV's record with a field that begins with a quotation mark is a quoted one.

        It is not where the marks do not pair up. It is where only so it has the header's number of fields, or where a
        mark inside is doubled. Where both readings are possible, a field in marks that nothing in it needs is a text
        in quotation marks, unless the header is quoted too; one over several lines is quoted, unless each line alone
        looks like a row. What one record has shown, holds for those behind it.
        """
        fits, fits_bare = len(record.cells) == len(self.header), len(bare) == len(self.header)
        if record.fault is not None or not fits:
            if fits_bare and self.quotes is None:
                self.quotes = False
            return bool(self.quotes) or not fits_bare
        if record.count > 1 and self.quotes is None:
            alone = [self._cells_alone(line) for line in self.ahead.seen(record.count)]
            if self._encloses_rows(record, alone):
                return False
        if record.needed or not fits_bare:
            self.quotes = True
        return bool(self.quotes) or self.quotes_all

    def _confined(self, record: Record) -> Record:
        """A record whose faulty quotation mark spoils as few lines as can be, and no part of a text becomes a row.

        A mark that is never closed, or closed lines later, covers lines that are rows of their own where the mark is a
        stray one, and parts of one text where it is not. They are taken for rows where they look like the others.
        """
        if record.fault is None and (record.count == 1 or len(record.cells) == len(self.header) == 1):
            return record
        count = record.count if record.fault is None else self._count_to_closing(record)
        lines = self.ahead.seen(count)[record.opened :]
        first, *behind = [self._cells_alone(line) for line in lines if without_end(line)]
        if record.fault is None and len(record.cells) == len(self.header):
            is_stray = len(behind) + 1 >= _ENCLOSED and self._encloses_rows(record, [first, *behind])
        else:
            is_stray = len(self.header) > 1 and self._mostly_rows(behind)
        if record.fault is not None and lines[0].count(QUOTE) % 2 == 0:
            is_stray = True  # the marks pair up on the line itself
        if is_stray:
            fault = record.fault or "a quotation mark opens here, and what it encloses looks like rows of their own"
            return Record(count=record.opened + 1, opened=record.opened, fault=fault)
        if record.fault is not None and count > 1:
            record.fault += f"; {count} lines are left out"
        record.count = count
        return record

    def _count_to_closing(self, record: Record) -> int:
        """Lines of a faulty record up to the one with the mark that its own, not paired, wait for, if there is one."""
        lines = self.ahead.seen(record.count)[record.opened :]
        if sum(line.count(QUOTE) for line in lines) % 2 == 0:
            return record.count
        count, length = record.count, 0
        while (line := self.ahead[count]) is not None and length <= LONGEST_LINE:
            count += 1
            length += len(line)
            if line.count(QUOTE) % 2:
                opens = any(cell.startswith(QUOTE) for cell in self._cells_alone(line))
                return record.count if opens else count
        return record.count

    def _encloses_rows(self, record: Record, alone: list[list[str]]) -> bool:
        """True if each line of a quoted record looks like a row; a doubled mark inside shows that it is meant as is."""
        is_meant = any(QUOTE in cell for cell in record.cells)
        return not is_meant and self.rows.all_alike(alone, len(self.header), record.cells)

    def _mostly_rows(self, rows: list[list[str]]) -> bool:
        rows = rows[:_LOOKED_AT]
        return sum(self.rows.is_alike(cells, len(self.header)) for cells in rows) >= _MOSTLY * len(rows)

    def _cells_alone(self, line: str) -> list[str]:
        """Fields of a physical line, as if no quotation mark before it were open."""
        return without_end(line).split(self.separator)
