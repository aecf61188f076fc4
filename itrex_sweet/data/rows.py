"""Whole sources: labelled rows for training and evaluation, a stream of texts for answering."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from itrex_sweet.data.columns import LABEL_COLUMN, Columns, Text, no_such_column
from itrex_sweet.data.files import FORMAT_OF_SUFFIX, FORMATS, READERS, file_lines, suffix_of
from itrex_sweet.data.labels import label_ids, names_beside
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
    label_column: str = LABEL_COLUMN,
    limit: int | None = None,
    *,
    label_names: Sequence[str] | None = None,
    require_labels: bool = False,
    dataset_config: str | None = None,
) -> Rows:
    """Reads texts, and labels where there are any.

    Args:
        source: a CSV, TSV, JSON-lines (`.gz` too) or text file, told by its suffix, a `datasets` name, or a
            `datasets.Dataset`.
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
    known_names = None if label_names is None else tuple(label_names)
    if isinstance(source, (str, os.PathLike)) and Path(source).is_file():
        lines, described = file_lines(Path(source)), str(source)
        found_names = names_beside(Path(source))
    else:
        if not isinstance(source, (str, os.PathLike)):
            dataset, described = source, "the data set"
        elif suffix_of(Path(source)) in FORMAT_OF_SUFFIX:
            raise InputError(f"{source}: no such file.")
        else:
            dataset, described = load_named_dataset(str(source), dataset_config, split), str(source)
        lines = dataset_lines(dataset, described)
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
            raise ConfigError(no_such_column(described, label_column, known_columns, "labels", "--label-column"))
        return Rows(texts, None, names, described, known_columns)
    labels, names = label_ids(raw_labels, places, names)
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
        lines, described = file_lines(Path(source), format), str(source)
    else:
        described = getattr(source, "name", "stream")
        lines = READERS[format or "text"](source, described)
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
