"""Rows of CSV, TSV, JSON-lines and text files, one at a time; a bad line is named, not raised."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from itrex_sweet.errors import InputError

FORMAT_OF_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
}
FORMATS = tuple(dict.fromkeys(FORMAT_OF_SUFFIX.values()))


@dataclass(frozen=True)
class Line:
    """One row of a source, or what is wrong with it.

    Args:
        place: file and line number, or a data set's row, for messages.
        record: the row's values by column; empty if it could not be read.
        problem: why it could not, if so.
    """

    place: str
    record: Mapping[str, Any]
    problem: str | None = None


def suffix_of(path: Path) -> str:
    """Lower-case suffix of a file, that of compression aside."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def file_lines(path: Path, format: str | None = None) -> Iterator[Line]:
    """The rows of a file, read as its suffix or `format` says.

    Raises:
        InputError: the file cannot be opened or is not what its suffix says.
    """
    format = format or FORMAT_OF_SUFFIX.get(suffix_of(path), "text")
    with _opened(path) as stream:
        yield from READERS[format](stream, str(path))


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    open_file = gzip.open if path.name.endswith(".gz") else io.open
    try:
        # Bytes that are not UTF-8 become surrogates, which `text_of` names, row by row.
        with open_file(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            yield stream
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error


def _text_lines(stream: TextIO, source: str) -> Iterator[Line]:
    for number, line in enumerate(stream, start=1):
        yield Line(f"{source}, line {number}", {"text": line.rstrip("\r\n")})


def _json_lines(stream: TextIO, source: str) -> Iterator[Line]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        place = f"{source}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Line(place, {}, f"not a JSON object ({error})")
            continue
        if isinstance(record, dict):
            yield Line(place, record)
        else:
            yield Line(place, {}, f"a JSON {type(record).__name__}, not an object")


def _csv_lines(stream: TextIO, source: str) -> Iterator[Line]:
    yield from _table_lines(csv.reader(stream, strict=True), source)


def _tsv_lines(stream: TextIO, source: str) -> Iterator[Line]:
    # Tab-separated corpora (GLUE's) hold bare quotation marks.
    yield from _table_lines(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE), source)


def _table_lines(reader: Any, source: str) -> Iterator[Line]:
    header: list[str] | None = None
    while True:
        place = f"{source}, line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if header is None:
                raise InputError(f"{place}: {error}.") from error
            yield Line(place, {}, str(error))
            continue
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = cells
            if len(set(header)) < len(header):
                raise InputError(f"{place}: column names repeat: {', '.join(header)}.")
        elif len(cells) != len(header):
            yield Line(place, {}, f"{len(cells)} fields, and the header has {len(header)}")
        else:
            yield Line(place, dict(zip(header, cells, strict=True)))


READERS = {"text": _text_lines, "jsonl": _json_lines, "csv": _csv_lines, "tsv": _tsv_lines}
