"""Reads the rows of Parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.data.line import Line
from itrex_sweet.errors import InputError
from itrex_sweet.extras import naming_extras

SUFFIX = ".parquet"

_BATCH_ROWS = 1024


def parquet_lines(path: Path) -> Iterator[Line]:
    """Yields the rows of a Parquet file.

    Raises:
        MissingExtraError: `pyarrow` is not installed.
        InputError: the file cannot be read.
    """
    import_error, file = _opened(path)
    number = 0
    try:
        for batch in file.iter_batches(_BATCH_ROWS):
            for record in _records(batch):
                yield Line(f"{path}, row {number}", record)
                number += 1
    except (OSError, import_error) as error:
        raise InputError(f"{path}, row {number}: the rest cannot be read ({error}).") from error
    finally:
        file.close()


def _records(batch: Any) -> list[dict[str, Any]]:
    """Returns the rows of a batch as dictionaries."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError):  # strings that are not UTF-8; dates and times that Python does not have
        columns = [column_values(column) for column in batch.columns]
        return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def column_values(column: Any) -> list[Any]:
    """Returns the values of a column of pyarrow.

    Strings that are not UTF-8 have half surrogates, which readers of texts report. Where Python has no such date or
    time, all values of the column are `None`.
    """
    import pyarrow as pa

    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        if isinstance(column, pa.ChunkedArray):
            return [value for chunk in column.chunks for value in column_values(chunk)]
        if pa.types.is_dictionary(column.type):
            values = column_values(column.dictionary)
            return [None if place is None else values[place] for place in column.indices.to_pylist()]
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            return [None] * len(column)
        values = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]


def label_names_in(path: Path) -> Mapping[str, list[str]]:
    """Returns the names of the labels of each column that `datasets` wrote as a `ClassLabel`, or as a list of them.

    Raises:
        InputError: the file cannot be read.
    """
    file = _opened(path)[1]
    metadata = file.schema_arrow.metadata or {}
    file.close()
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        columns = {name: feature.get("feature", feature) for name, feature in features.items()}
        return {name: feature["names"] for name, feature in columns.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _opened(path: Path) -> tuple[type[Exception], Any]:
    """Returns the base class of `pyarrow`'s errors, and the open file."""
    with naming_extras("reading a Parquet file"):
        from pyarrow import ArrowException, parquet
    try:
        return ArrowException, parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, ArrowException) as error:
        raise InputError(f"{path} cannot be read as a Parquet file ({error}).") from error
