"""Reads CSV and TSV files, and reports the line of a misplaced quotation mark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from itrex_sweet.data.line import Line
from itrex_sweet.data.lines import MAX_LINE, without_end
from itrex_sweet.data.quoting import QUOTE, Lookahead, Record, scan_record
from itrex_sweet.data.row_comparison import RowComparison
from itrex_sweet.errors import InputError

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_MIN_ENCLOSED = 4  # quoted lines that look like rows from which the quotation mark is treated as misplaced
_MAX_ENCLOSED = 200  # of these lines that are compared
_ROW_SHARE = 0.8  # of the lines after a quotation mark that look like rows, from which the mark is misplaced


def csv_records(lines: Iterable[str], source: str) -> Iterator[Line]:
    """Yields the records of a comma-separated file, quoted as in RFC 4180."""
    return _Table(lines, source, ",", may_be_bare=False).records()


def tsv_records(lines: Iterable[str], source: str) -> Iterator[Line]:
    """Yields the records of a tab-separated file.

    Its quotation marks quote fields (as pandas writes them) or are part of the text (as in GLUE): see
    `_Table._is_quoted`.
    """
    return _Table(lines, source, "\t", may_be_bare=True).records()


class _Table:
    """Reads one file.

    Args:
        lines: physical lines.
        source: name of the source, for messages.
        separator: separator of fields.
        may_be_bare: quotation marks may be part of the text.
    """

    def __init__(self, lines: Iterable[str], source: str, separator: str, may_be_bare: bool):
        self.source, self.separator, self.may_be_bare = source, separator, may_be_bare
        self.ahead = Lookahead(lines)
        self.header: list[str] = []
        self.rows = RowComparison()
        self.quotes: bool | None = None if may_be_bare else True  # `None` until a record decides it
        self.quotes_all = False  # fields that need no quotes are quoted too

    def records(self) -> Iterator[Line]:
        """Yields the records after the header.

        Raises:
            InputError: the header is not valid.
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
        here, record = self._here(), scan_record(self.ahead, self.separator)
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
        record = scan_record(self.ahead, self.separator)
        if self.may_be_bare and not self._is_quoted(record, bare):
            return self._line(Record(bare))
        return self._line(self._confined(record))

    def _line(self, record: Record) -> Line:
        """Consumes the lines of a record and returns it, or its problem."""
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
        """Returns whether quotation marks quote fields in a TSV record with a field that starts with one.

        They do not if the marks are not paired. They do if only then the record has the header's number of fields, or
        if a mark inside a field is doubled. If both are possible, marks around a field that does not need them are
        part of the text, unless the header is quoted too; a field over several lines is quoted, unless each line looks
        like a row. The decision for one record holds for the records after it.
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
        """Limits the lines that a faulty quotation mark affects, without turning a part of a text into a row.

        A mark that is never closed, or closed several lines later, encloses rows if it is misplaced, and the lines of
        one text if it is not. The lines are treated as rows if they look like the other rows.
        """
        if record.fault is None and (record.count == 1 or len(record.cells) == len(self.header) == 1):
            return record
        count = record.count if record.fault is None else self._count_to_closing(record)
        lines = self.ahead.seen(count)[record.opened :]
        first, *behind = [self._cells_alone(line) for line in lines if without_end(line)]
        if record.fault is None and len(record.cells) == len(self.header):
            is_stray = len(behind) + 1 >= _MIN_ENCLOSED and self._encloses_rows(record, [first, *behind])
        else:
            is_stray = len(self.header) > 1 and self._mostly_rows(behind)
        if record.fault is not None and lines[0].count(QUOTE) % 2 == 0:
            is_stray = True  # the marks on the line itself are paired
        if is_stray:
            fault = record.fault or "the quotation mark that opens here encloses lines that look like rows"
            return Record(count=record.opened + 1, opened=record.opened, fault=fault)
        if record.fault is not None and count > 1:
            record.fault += f"; {count} lines are skipped"
        record.count = count
        return record

    def _count_to_closing(self, record: Record) -> int:
        """Returns the number of lines of a faulty record up to the one with the closing mark, if there is one."""
        lines = self.ahead.seen(record.count)[record.opened :]
        if sum(line.count(QUOTE) for line in lines) % 2 == 0:
            return record.count
        count, length = record.count, 0
        while (line := self.ahead[count]) is not None and length <= MAX_LINE:
            count += 1
            length += len(line)
            if line.count(QUOTE) % 2:
                opens = any(cell.startswith(QUOTE) for cell in self._cells_alone(line))
                return record.count if opens else count
        return record.count

    def _encloses_rows(self, record: Record, alone: list[list[str]]) -> bool:
        """Returns whether each line of a quoted record looks like a row; a doubled mark inside rules that out."""
        is_intended = any(QUOTE in cell for cell in record.cells)
        return not is_intended and self.rows.all_alike(alone, len(self.header), record.cells)

    def _mostly_rows(self, rows: list[list[str]]) -> bool:
        rows = rows[:_MAX_ENCLOSED]
        return sum(self.rows.is_alike(cells, len(self.header)) for cells in rows) >= _ROW_SHARE * len(rows)

    def _cells_alone(self, line: str) -> list[str]:
        """Returns the fields of a physical line, ignoring quotation marks."""
        return without_end(line).split(self.separator)
