"""Whole sources: labelled rows for training and evaluation, a stream of texts for answering."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from itrex_sweet.data.columns import LABEL_COLUMN, ColumnChoice, Text, no_such_column
from itrex_sweet.data.files import FORMAT_OF_SUFFIX, FORMATS, file_lines, format_of, stream_lines, suffix_of
from itrex_sweet.data.labels import Meanings, label_ids, names_beside
from itrex_sweet.data.line import Line
from itrex_sweet.data.lines import is_readable
from itrex_sweet.data.named_datasets import dataset_lines, load_named_dataset
from itrex_sweet.errors import ConfigError, InputError

if TYPE_CHECKING:
    from datasets import Dataset


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


def read_rows(
    source: str | os.PathLike | Dataset,
    split: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = LABEL_COLUMN,
    limit: int | None = None,
    *,
    label_names: Sequence[str] | None = None,
    label_meanings: Meanings | None = None,
    require_labels: bool = False,
    new_classes: bool = False,
    dataset_config: str | None = None,
) -> Rows:
    """Reads texts, and labels where there are any.

    Args:
        source: a CSV, TSV, JSON (lines or one array; `.gz` too) or text file, told by its suffix, a `datasets` name,
            or a `datasets.Dataset`.
        split: of a data set that has several.
        text_column: guessed from the common names if absent.
        pair_column: of the second text of a sentence pair; guessed with the first.
        label_column: label ids, `LABEL_k` or names; `None` leaves labels out. Labels meet `label_names` by name;
            without them, names become ids in their natural order (`class2` before `class10`).
        limit: rows read at most, from the beginning.
        label_names: the names that are allowed, by id; `LABEL_0`, `LABEL_1`, ... for a model without names.
        label_meanings: names of the source's integer labels, by number, or of its labels, by value. If absent, those
            of a `datasets.ClassLabel`, or the list `labels` of a file `info.json` beside the source.
        require_labels: refuse a source without labels.
        new_classes: the labels are to be those of a new model: refuse gaps, variants of one name, and columns that
            hold no classes.
        dataset_config: configuration of a `datasets` name that has several, such as `sst2` of `glue`.

    Raises:
        InputError: not there, unreadable, or a row is malformed, empty, without label, or has a label that is not
            allowed; the message names file and line.
        ConfigError: columns cannot be guessed, or those named are not there; the message says what is.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: read at least one row.")
    names = _distinct(label_names, "label_names")
    lines, described, features = _lines_of(source, split, dataset_config)
    choice = ColumnChoice(described, text_column, pair_column, label_column)
    known_columns: tuple[str, ...] = ()
    named_column: str | None = None
    texts: list[Text] = []
    raw_labels: list[Any] = []
    places: list[str] = []
    for line in islice(lines, limit):
        if line.problem is not None:
            raise InputError(f"{line.place}: {line.problem}")
        known_columns = known_columns or tuple(map(str, line.record))
        columns = choice.of(line.record)
        text, problem = columns.text_of(line.record)
        if problem is not None or text is None:
            raise InputError(f"{line.place}: {problem}")
        if texts and isinstance(text, str) != isinstance(texts[0], str):
            raise InputError(f"{line.place}: a pair of texts among single ones, or the other way round", (len(texts),))
        texts.append(text)
        places.append(line.place)
        named_column = named_column or columns.label
        raw_labels.append(None if columns.label is None else line.record.get(columns.label))
    if not texts:
        raise InputError(f"{described} has no rows.")
    if label_meanings is None:
        label_meanings = (
            names_beside(Path(described)) if features is None else getattr(features.get(named_column), "names", None)
        )
    if named_column is None:
        if require_labels and label_column is not None:
            raise ConfigError(no_such_column(described, label_column, known_columns, "labels", "--label-column"))
        return Rows(texts, None, names, described, known_columns)
    labels, names = label_ids(raw_labels, places, names, label_meanings, new_classes=new_classes)
    return Rows(texts, labels, names, described, known_columns)


def _lines_of(
    source: str | os.PathLike | Dataset, split: str | None, dataset_config: str | None
) -> tuple[Iterator[Line], str, Mapping[str, Any] | None]:
    """The rows of a file or data set, its name, and for a data set what its columns hold."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if is_readable(path):
            return file_lines(path), str(source), None
        if suffix_of(path) in FORMAT_OF_SUFFIX:
            raise InputError(f"{source}: no such file.")
        dataset, described = load_named_dataset(str(source), dataset_config, split), str(source)
    else:
        dataset, described = source, "the data set"
    return dataset_lines(dataset, described), described, dataset.features


def _distinct(names: Sequence[str] | None, what: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or len(set(names)) < len(names):
        raise ConfigError(f"{what}={names!r}: give every label one name, and each another.")
    return tuple(names)


@dataclass(frozen=True)
class TextRow:
    """One text, or what is wrong with it.

    Args:
        place: file and line, or the like.
        text: one text or a pair; `None` with a problem.
        problem: why there is no text.
        record: the row's values by column, as far as they were read.
    """

    place: str
    text: Text | None
    problem: str | None
    record: Mapping[str, Any]


def read_text_rows(
    source: str | os.PathLike | TextIO,
    format: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    *,
    name: str | None = None,
) -> Iterator[TextRow]:
    """Yields texts one by one, as they come, and in place of a bad row what is wrong with it.

    Args:
        source: a file, or an open text stream such as standard input.
        format: `"text"` (one text per line), `"jsonl"`, `"csv"` or `"tsv"`; by the file's suffix, else text.
        text_column, pair_column: as in `read_rows`; of JSON, each record may have others.
        name: of a stream, for messages; its own if absent.

    Raises:
        InputError: the file is not there or cannot be read at all.
        ConfigError: an unknown format, or columns that are not there.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format={format!r}: choose one of {', '.join(FORMATS)}.")
    if isinstance(source, (str, os.PathLike)):
        format, described = format_of(Path(source), format), str(source)
        lines = file_lines(Path(source), format)
    else:
        format, described = format or "text", name or str(getattr(source, "name", "stream"))
        lines = stream_lines(source, described, format)
    choice = ColumnChoice(described, text_column, pair_column, None)
    for line in lines:
        text, problem = None, line.problem
        if problem is None:
            try:
                text, problem = choice.of(line.record).text_of(line.record)
            except ConfigError as error:
                if format != "jsonl":
                    raise
                problem = str(error)  # the next object may have other keys
        yield TextRow(line.place, text, None if problem is None else f"{line.place}: {problem}", line.record)


def read_texts(
    source: str | os.PathLike | TextIO,
    format: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
) -> Iterator[tuple[Text | None, str | None]]:
    """The texts and problems of `read_text_rows`, as (text, None) or (None, problem), once per row."""
    for row in read_text_rows(source, format, text_column, pair_column):
        yield row.text, row.problem
