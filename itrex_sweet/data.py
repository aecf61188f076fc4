"""Texts and labels from CSV, JSON-lines and text files, or from a `datasets` name. Imports no torch."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from itrex_sweet.errors import ConfigError, InputError

Text = str | tuple[str, str]

# Column names in common use, likeliest first; a pair is taken only where both columns are there.
PAIR_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("question", "passage"),
    ("text1", "text2"),
    ("text", "text_pair"),
)
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "document", "tweet")
LABEL_COLUMN = "label"

_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
}
FORMATS = tuple(dict.fromkeys(_FORMATS.values()))


@dataclass(frozen=True)
class Rows:
    """Texts in the order of their source.

    Args:
        texts: one text each, or a pair of texts for sentence-pair tasks.
        labels: label ids from 0, or `None` where the source has no label column.
        label_names: name of each id, or `None` where only numbers are known.
        source: what was read, for messages.
        columns: column names of the source; none for a text file.
    """

    texts: list[Text]
    labels: list[int] | None = None
    label_names: tuple[str, ...] | None = None
    source: str = ""
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_labels(self) -> int:
        """Labels there can be: as many as there are names, or the highest id and one."""
        if self.label_names is not None:
            return len(self.label_names)
        return max(self.labels, default=-1) + 1 if self.labels is not None else 0


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


# ---------------------------------------------------------------------------------- whole sources


def read_rows(
    source: str | os.PathLike,
    split: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str = LABEL_COLUMN,
    limit: int | None = None,
    *,
    label_names: Sequence[str] | None = None,
    require_labels: bool = False,
    dataset_config: str | None = None,
) -> Rows:
    """Reads texts, and labels where there are any.

    Args:
        source: a CSV, TSV, JSON-lines (`.gz` too) or text file, told by its suffix, or a `datasets` name.
        split: of a data set that has several.
        text_column: guessed from the common names if absent.
        pair_column: of the second text of a sentence pair; guessed with the first.
        label_column: label ids, or names. Names become ids in `label_names`' order, or sorted. A file
            `info.json` beside the source names integer labels with its list `labels`.
        limit: rows read at most, from the beginning.
        label_names: the names that are allowed, by id.
        require_labels: refuse a source without labels.
        dataset_config: configuration of a `datasets` name that has several, such as `sst2` of `glue`.

    Raises:
        InputError: not there, unreadable, or a row is malformed, empty or has a label that is not allowed;
            the message names file and line.
        ConfigError: columns cannot be guessed, or those named are not there; the message says what is.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: read at least one row.")
    path = Path(source)
    known_names = None if label_names is None else tuple(label_names)
    if path.is_file():
        lines, described = _file_lines(path), str(path)
        found_names = _names_beside(path)
    elif _suffix(path) in _FORMATS:
        raise InputError(f"{path}: no such file.")
    else:
        dataset = _load_dataset(str(source), dataset_config, split)
        lines, described = _dataset_lines(dataset, str(source)), str(source)
        found_names = getattr(dataset.features.get(label_column), "names", None)
    names = known_names or (tuple(found_names) if found_names else None)

    columns: Columns | None = None
    known_columns: tuple[str, ...] = ()
    texts: list[Text] = []
    raw_labels: list[Any] = []
    places: list[str] = []
    for line in islice(lines, limit):
        if line.problem is not None:
            raise InputError(f"{line.place}: {line.problem}")
        if columns is None:
            known_columns = tuple(map(str, line.record))
            columns = Columns.choose(known_columns, described, text_column, pair_column, label_column)
        text, problem = columns.text_of(line.record)
        if problem is not None or text is None:
            raise InputError(f"{line.place}: {problem}")
        texts.append(text)
        places.append(line.place)
        if columns.label is not None:
            raw_labels.append(line.record.get(columns.label))
    if not texts:
        raise InputError(f"{described} has no rows.")
    if columns is None or columns.label is None:
        if require_labels:
            raise ConfigError(_no_such_column(described, label_column, known_columns, "labels", "--label-column"))
        return Rows(texts, None, names, described, known_columns)
    labels, names = _label_ids(raw_labels, places, names)
    return Rows(texts, labels, names, described, known_columns)


def read_texts(
    source: str | os.PathLike | TextIO,
    format: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
) -> Iterator[tuple[Text | None, str | None]]:
    """Yields texts one by one, as they come, and in place of a bad row what is wrong with it.

    Args:
        source: a file, or an open text stream such as standard input.
        format: `"text"` (one text per line), `"jsonl"`, `"csv"` or `"tsv"`; by the file's suffix, else text.
        text_column, pair_column: as in `read_rows`.

    Yields:
        (text, None) or (None, problem), once per row. The problem starts with file and line.

    Raises:
        InputError: the file is not there or cannot be read at all.
        ConfigError: an unknown format, or columns that are not there.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format={format!r}: choose one of {', '.join(FORMATS)}.")
    if isinstance(source, (str, os.PathLike)):
        lines, described = _file_lines(Path(source), format), str(source)
    else:
        described = getattr(source, "name", "stream")
        lines = _READERS[format or "text"](source, described)
    columns: Columns | None = None
    for line in lines:
        if line.problem is not None:
            yield None, f"{line.place}: {line.problem}"
            continue
        if columns is None:
            columns = Columns.choose(tuple(map(str, line.record)), described, text_column, pair_column, None)
        text, problem = columns.text_of(line.record)
        yield text, None if problem is None else f"{line.place}: {problem}"


def standard_input() -> TextIO:
    """Standard input as UTF-8, whatever the locale; bytes that are not UTF-8 spoil only their own line."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    return sys.stdin


# ---------------------------------------------------------------------------------- columns


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Args:
        text: the text, or the first of a pair.
        pair: the second of a pair.
        label: the label.
    """

    text: str
    pair: str | None = None
    label: str | None = None

    @classmethod
    def choose(
        cls,
        columns: Sequence[str],
        source: str,
        text_column: str | None,
        pair_column: str | None,
        label_column: str | None,
    ) -> Columns:
        """Finds the columns by the names given, else by the common ones, upper or lower case.

        Raises:
            ConfigError: a column named is not there, or none is called as texts usually are.
        """
        for name, what, option in (
            (text_column, "texts", "--text-column"),
            (pair_column, "texts", "--pair-column"),
        ):
            if name is not None and name not in columns:
                raise ConfigError(_no_such_column(source, name, columns, what, option))
        if pair_column is not None and text_column is None:
            raise ConfigError(f"pair_column={pair_column!r} needs text_column, the first text of the pair.")
        label = None
        if label_column is not None:
            label = next((name for name in columns if name.lower() == label_column.lower()), None)
            if label is None and label_column != LABEL_COLUMN:
                raise ConfigError(_no_such_column(source, label_column, columns, "labels", "--label-column"))
        if text_column is not None:
            return cls(text_column, pair_column, label)
        by_lower_case = {name.lower(): name for name in columns}
        for first, second in PAIR_COLUMNS:
            if first in by_lower_case and second in by_lower_case:
                return cls(by_lower_case[first], by_lower_case[second], label)
        for name in TEXT_COLUMNS:
            if name in by_lower_case:
                return cls(by_lower_case[name], None, label)
        raise ConfigError(
            f"{source}: no column is called as texts usually are ({', '.join(TEXT_COLUMNS[:3])}, "
            f"{'+'.join(PAIR_COLUMNS[0])}, ...). It has: {', '.join(columns) or 'none'}. "
            "Name the one to read with text_column (--text-column)."
        )

    def text_of(self, record: Mapping[str, Any]) -> tuple[Text | None, str | None]:
        """The text or pair of one record, or what is wrong with it."""
        parts = []
        for name in (self.text,) if self.pair is None else (self.text, self.pair):
            value = record.get(name)
            if value is None:
                return None, f"no value in column {name!r}"
            if not isinstance(value, str):
                return None, f"column {name!r} holds {type(value).__name__}, not a text"
            if not value.strip():
                return None, f"the text in column {name!r} is empty" if len(record) > 1 else "the text is empty"
            if any("\ud800" <= character <= "\udfff" for character in value):
                return None, f"column {name!r} is not valid UTF-8" if len(record) > 1 else "not valid UTF-8"
            parts.append(value)
        return (parts[0] if self.pair is None else (parts[0], parts[1])), None


def _no_such_column(source: str, name: str, columns: Sequence[str], what: str, option: str) -> str:
    listed = ", ".join(columns) or "none"
    return f"{source} has no column {name!r}; it has: {listed}. Name that of the {what} with {option}."


# ---------------------------------------------------------------------------------- labels


def _label_ids(
    values: Sequence[Any], places: Sequence[str], names: tuple[str, ...] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    """Ids and names of raw labels: whole numbers stay, anything else is a name."""
    for row, (value, place) in enumerate(zip(values, places, strict=True)):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InputError(f"{place}: no label", (row,))
        if not isinstance(value, (str, int, float)):
            raise InputError(f"{place}: label {value!r} is neither a number nor a name", (row,))
    numbers = [_whole_number(value) for value in values]
    known = None if names is None else {name: place for place, name in enumerate(names)}
    if known is not None and not any(isinstance(value, str) and value.strip() in known for value in values):
        known = None
    if known is None and all(number is not None for number in numbers):
        ids = [number for number in numbers if number is not None]
    else:
        spelled = [str(value).strip() for value in values]
        names = names or tuple(sorted(set(spelled)))
        by_name = {name: place for place, name in enumerate(names)}
        for row, (name, place) in enumerate(zip(spelled, places, strict=True)):
            if name not in by_name:
                raise InputError(f"{place}: label {name!r} is not one of {', '.join(names)}", (row,))
        return [by_name[name] for name in spelled], names
    for row, (label, place) in enumerate(zip(ids, places, strict=True)):
        if label < 0:
            raise InputError(f"{place}: label {label}; labels count from 0 (a test set without labels?)", (row,))
        if names is not None and label >= len(names):
            raise InputError(
                f"{place}: label {label}; labels go from 0 to {len(names) - 1} ({', '.join(names)})", (row,)
            )
    return ids, names


def _whole_number(value: str | int | float) -> int | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _names_beside(path: Path) -> Sequence[str] | None:
    """`labels` of an `info.json` beside a data file, where there is one."""
    try:
        info = json.loads((path.parent / "info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = info.get("labels") if isinstance(info, dict) else None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    return None


# ---------------------------------------------------------------------------------- files


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _file_lines(path: Path, format: str | None = None) -> Iterator[Line]:
    format = format or _FORMATS.get(_suffix(path), "text")
    with _opened(path) as stream:
        yield from _READERS[format](stream, str(path))


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


_READERS = {"text": _text_lines, "jsonl": _json_lines, "csv": _csv_lines, "tsv": _tsv_lines}


# ---------------------------------------------------------------------------------- data sets


def _load_dataset(name: str, config: str | None, split: str | None) -> Any:
    """One split of a data set, from the hub, its cache or a folder."""
    import datasets

    path = Path(name)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config)
    # `datasets` raises what its readers raise: beside its own errors those of files, networks and parsers.
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{name} is neither a file here nor a data set that could be loaded: {first_line}") from error
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        asked = "has several splits" if split is None else f"has no split {split!r}"
        raise ConfigError(f"{name} {asked}; choose one of {', '.join(loaded)}.")
    return loaded[split]


def _dataset_lines(dataset: Iterable[Mapping[str, Any]], name: str) -> Iterator[Line]:
    for number, record in enumerate(dataset):
        yield Line(f"{name}, row {number}", record)
