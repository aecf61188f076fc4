"""Reads sources: all labelled rows for training and evaluation, or a stream of texts for prediction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from itrex_sweet.data.columns import LABEL_COLUMN, ColumnChoice, Text, no_such_column
from itrex_sweet.data.files import FORMAT_OF_SUFFIX, FORMATS, file_lines, format_of, is_parquet, stream_lines, suffix_of
from itrex_sweet.data.invalid_rows import warn_of_invalid_rows
from itrex_sweet.data.label_sets import label_vectors
from itrex_sweet.data.labels import Meanings, label_ids, names_beside
from itrex_sweet.data.line import Line
from itrex_sweet.data.lines import is_readable
from itrex_sweet.data.named_datasets import dataset_lines, load_named_dataset
from itrex_sweet.data.parquet import label_names_in
from itrex_sweet.data.values import regression_targets
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Rows:
    """Texts in the order of their source.

    Args:
        texts: a text, or a pair of texts, per row.
        labels: label ids from 0; vectors of ones and zeros for multi-label classification, numbers for regression.
            `None` if the source has no label column.
        label_names: name of each id, or `None` if the labels are numbers.
        source: name of the source, for messages.
        columns: column names of the source; empty for a text file.
    """

    texts: list[Text]
    labels: list[int] | list[list[int]] | list[float] | None = None
    label_names: tuple[str, ...] | None = None
    source: str = ""
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def num_labels(self) -> int:
        """Number of labels: of the names, or the highest id plus one."""
        if self.label_names is not None:
            return len(self.label_names)
        return max(self.labels, default=-1) + 1 if self.labels is not None else 0


def read_rows(
    source: str | os.PathLike | Dataset,
    split: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | Sequence[str] | None = LABEL_COLUMN,
    limit: int | None = None,
    *,
    task: str = SINGLE_LABEL,
    label_names: Sequence[str] | None = None,
    label_meanings: Meanings | None = None,
    require_labels: bool = False,
    new_classes: bool = False,
    dataset_config: str | None = None,
    skip_invalid: bool = False,
) -> Rows:
    """Reads texts, and their labels if the source has any.

    Args:
        source: a CSV, TSV, JSON (lines or one array) or text file, by its suffix, also with `.gz`; a Parquet file; a
            name for `datasets.load_dataset`; or a `datasets.Dataset`.
        split: split of a data set that has several.
        text_column: column of the texts; by default the first with a common name.
        pair_column: column of the second text of a pair; by default found together with the first.
        label_column: column of label ids, `LABEL_k` or names; `None` ignores labels. For multi-label classification
            also the columns of the labels, as a list or separated by commas; see `label_sets` for the forms of labels.
            Labels are looked up in `label_names` by name; without `label_names`, names get ids in their natural order
            (`class2` before `class10`).
        limit: read at most this number of rows, from the start.
        task: name of the task, see `itrex_sweet.tasks`; the labels of a regression are numbers.
        label_names: allowed names, by id; `LABEL_0`, `LABEL_1`, ... for a model without names.
        label_meanings: names of the source's integer labels, by number, or of its labels, by value. By default those
            of a `datasets.ClassLabel`, or the list `labels` of a file `info.json` in the folder of the source.
        require_labels: raise an error for a source without labels.
        new_classes: the labels are those of a new model: raise an error for gaps, variants of one name, and columns
            that do not hold classes.
        dataset_config: configuration of a data set that has several, such as `sst2` of `glue`.
        skip_invalid: leave out rows that are malformed or have no text, with a warning, if they are at most a tenth.

    Raises:
        InputError: the source does not exist or cannot be read, or a row is malformed, empty, has no label or a label
            that is not allowed; the message names file and line.
        ConfigError: no column has a common name, or a given column does not exist; the message lists the columns.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: it must be at least 1.")
    names = _distinct(label_names, "label_names")
    lines, described, features = _lines_of(source, split, dataset_config)
    several = _several_columns(label_column, task)
    choice = ColumnChoice(described, text_column, pair_column, None if several else label_column)
    known_columns: tuple[str, ...] = ()
    named_column: str | None = None
    texts: list[Text] = []
    raw_labels: list[Any] = []
    places: list[str] = []
    invalid: list[str] = []
    for line in islice(lines, limit):
        text, problem = None, line.problem
        if problem is None:
            known_columns = known_columns or tuple(map(str, line.record))
            columns = choice.of(line.record)
            text, problem = columns.text_of(line.record)
        if problem is not None or text is None:
            invalid.append(f"{line.place}: {problem}")
            if not skip_invalid:
                raise InputError(invalid[0])
            continue
        if texts and isinstance(text, str) != isinstance(texts[0], str):
            raise InputError(f"{line.place}: pairs of texts and single texts are mixed", (len(texts),))
        texts.append(text)
        places.append(line.place)
        named_column = named_column or columns.label
        if several and not raw_labels:
            for name in several:
                if name not in line.record:
                    raise ConfigError(no_such_column(described, name, known_columns, "labels", "--label-column"))
        if several:
            raw_labels.append({name: line.record.get(name) for name in several})
        else:
            raw_labels.append(None if columns.label is None else line.record.get(columns.label))
    warn_of_invalid_rows(invalid, len(texts), described)
    if not texts:
        raise InputError(f"{described} has no rows.")
    if label_meanings is None and task != REGRESSION and not several:
        label_meanings = None if features is None else _names_of(features.get(named_column))
        if label_meanings is None and (features is None or is_parquet(Path(described))):
            label_meanings = names_beside(Path(described))
    if named_column is None and not several:
        if require_labels and label_column is not None:
            raise ConfigError(no_such_column(described, label_column, known_columns, "labels", "--label-column"))
        return Rows(texts, None, names, described, known_columns)
    if task == REGRESSION:
        return Rows(texts, regression_targets(raw_labels, places), None, described, known_columns)
    if task == MULTI_LABEL:
        vectors, names = label_vectors(raw_labels, places, names or several, label_meanings)
        return Rows(texts, vectors, names, described, known_columns)
    labels, names = label_ids(raw_labels, places, names, label_meanings, new_classes=new_classes)
    return Rows(texts, labels, names, described, known_columns)


def _several_columns(label_column: str | Sequence[str] | None, task: str) -> tuple[str, ...] | None:
    """Returns the label columns if there are several, for multi-label classification.

    Raises:
        ConfigError: several columns for another task.
    """
    if isinstance(label_column, str) and task == MULTI_LABEL and "," in label_column:
        label_column = [name.strip() for name in label_column.split(",") if name.strip()]
    if label_column is None or isinstance(label_column, str):
        return None
    if task != MULTI_LABEL:
        raise ConfigError(f"label_column={label_column!r}: only multi-label classification has several label columns.")
    return _distinct(label_column, "label_column")


def _names_of(feature: Any) -> Sequence[str] | None:
    """Returns the names of a `ClassLabel`, or of a list of them; a list is returned as it is."""
    if isinstance(feature, list):
        return feature
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _lines_of(
    source: str | os.PathLike | Dataset, split: str | None, dataset_config: str | None
) -> tuple[Iterator[Line], str, Mapping[str, Any] | None]:
    """Returns the rows of a file or data set, its name, and the features of a data set (names of labels of a file)."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if is_readable(path):
            return file_lines(path), str(source), label_names_in(path) if is_parquet(path) else None
        if suffix_of(path) in FORMAT_OF_SUFFIX or is_parquet(path):
            raise InputError(f"{source}: no such file.")
        dataset, described = load_named_dataset(str(source), dataset_config, split), str(source)
    else:
        dataset, described = source, "the data set"
    return dataset_lines(dataset, described), described, dataset.features


def _distinct(names: Sequence[str] | None, what: str) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or len(set(names)) < len(names):
        raise ConfigError(f"{what}={names!r}: give a list of different names.")
    return tuple(names)


@dataclass(frozen=True)
class TextRow:
    """A text, or the reason why it cannot be read.

    Args:
        place: file and line, or row of a data set.
        text: a text or a pair; `None` if there is a problem.
        problem: the reason why there is no text.
        record: the row's values by column, as far as they could be read.
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
    """Yields texts one by one as they arrive, and the problem of a row that cannot be read.

    Args:
        source: a file, or an open text stream such as standard input.
        format: `"text"` (one text per line), `"jsonl"`, `"csv"` or `"tsv"`; by default that of the file's suffix,
            otherwise `"text"`.
        text_column, pair_column: see `read_rows`; in JSON, records may have different columns.
        name: name of a stream, for messages.

    Raises:
        InputError: the file does not exist or cannot be read.
        ConfigError: an unknown format, or columns that do not exist.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format={format!r}: choose one of {', '.join(FORMATS)}.")
    if isinstance(source, (str, os.PathLike)):
        lines, described = file_lines(Path(source), format), str(source)
        format = format_of(Path(source), format)
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
    """Yields (text, None) or (None, problem) for each row of `read_text_rows`."""
    for row in read_text_rows(source, format, text_column, pair_column):
        yield row.text, row.problem
