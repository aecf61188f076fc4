"""Rows of CSV, TSV, JSON and text files, one at a time; a bad line is named, not raised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from itrex_sweet.data.json_records import json_records
from itrex_sweet.data.line import Line
from itrex_sweet.data.lines import opened, physical_lines, without_end
from itrex_sweet.data.tables import csv_records, tsv_records

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
TABLES = ("csv", "tsv")  # every row has the columns of the header


def format_of(path: Path, format: str | None = None) -> str:
    """The format given, else that of the suffix, else text."""
    return format or FORMAT_OF_SUFFIX.get(suffix_of(path), "text")


def suffix_of(path: Path) -> str:
    """Lower-case suffix of a file, that of compression aside."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def file_lines(path: Path, format: str | None = None) -> Iterator[Line]:
    """The rows of a file, read as its suffix or `format` says.

    Raises:
        InputError: the file cannot be opened or is not what its suffix says.
    """
    with opened(path) as stream:
        yield from stream_lines(stream, str(path), format_of(path, format))


def stream_lines(stream: Iterable[str], source: str, format: str) -> Iterator[Line]:
    """The rows of an open text stream, or of anything else that gives pieces of text.

    Raises:
        InputError: it breaks off, or its header cannot be one.
    """
    yield from _READERS[format](physical_lines(stream, source), source)


def _text_lines(lines: Iterable[str], source: str) -> Iterator[Line]:
    for number, line in enumerate(lines, start=1):
        problem = "a NUL character: is this a text file in UTF-8?" if "\0" in line else None
        yield Line(f"{source}, line {number}", {"text": without_end(line)}, problem)


_READERS = {"text": _text_lines, "jsonl": json_records, "csv": csv_records, "tsv": tsv_records}
