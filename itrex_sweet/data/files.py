"""Reads the rows of CSV, TSV, JSON, text and Parquet files; reports a malformed row without raising an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from itrex_sweet.data.json_records import json_records
from itrex_sweet.data.line import Line
from itrex_sweet.data.lines import opened, physical_lines, without_end
from itrex_sweet.data.parquet import SUFFIX, parquet_lines
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
TABLES = ("csv", "tsv")  # formats in which every row has the columns of the header


def format_of(path: Path, format: str | None = None) -> str:
    """Returns the given format, otherwise that of the suffix, otherwise `"text"`."""
    return format or FORMAT_OF_SUFFIX.get(suffix_of(path), "text")


def is_parquet(path: Path, format: str | None = None) -> bool:
    """Returns whether a file is read as Parquet: by its suffix, if no format is given."""
    return format is None and path.suffix.lower() == SUFFIX


def suffix_of(path: Path) -> str:
    """Returns the lower-case suffix of a file, without `.gz`."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def file_lines(path: Path, format: str | None = None) -> Iterator[Line]:
    """Yields the rows of a file.

    Args:
        format: one of `FORMATS`; by default that of the suffix.

    Raises:
        InputError: the file cannot be opened, or is not a text file or, by its suffix, a Parquet file.
        MissingExtraError: a Parquet file, and `pyarrow` is not installed.
    """
    if is_parquet(path, format):
        yield from parquet_lines(path)
        return
    with opened(path) as stream:
        yield from stream_lines(stream, str(path), format_of(path, format))


def stream_lines(stream: Iterable[str], source: str, format: str) -> Iterator[Line]:
    """Yields the rows of an open text stream, or of another iterable of strings.

    Raises:
        InputError: reading fails, or the header is not valid.
    """
    yield from _READERS[format](physical_lines(stream, source), source)


def _text_lines(lines: Iterable[str], source: str) -> Iterator[Line]:
    for number, line in enumerate(lines, start=1):
        problem = "a NUL character: is this a text file in UTF-8?" if "\0" in line else None
        yield Line(f"{source}, line {number}", {"text": without_end(line)}, problem)


_READERS = {"text": _text_lines, "jsonl": json_records, "csv": csv_records, "tsv": tsv_records}
