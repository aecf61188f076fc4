"""Reads texts from batches of columns, and adds the columns of answers to them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.data import Text
from itrex_sweet.data.columns import Columns
from itrex_sweet.data.parquet import column_values
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.tasks import MULTI_LABEL, SINGLE_LABEL

Batch = Any  # a mapping of NumPy arrays, a `pyarrow.Table` or a `pandas.DataFrame`

_SOURCE = "the batch"
LABELS, STRING, FLOAT, INT = "labels", "string", "float", "int"  # types of columns


@dataclass(frozen=True)
class AnswerColumns:
    """The columns that hold the answers of a model.

    Args:
        task: name of its task.
        ranked: whether the answers rank labels, the option `top_k` of `Classifier.predict`.
        prefix: of the names of all columns.
    """

    task: str
    ranked: bool = False
    prefix: str = ""

    @property
    def types(self) -> dict[str, str]:
        """The type of each field of an answer, by its name in the answer."""
        if self.task == SINGLE_LABEL:
            own = {"label": STRING, "score": FLOAT, **({"labels": LABELS} if self.ranked else {})}
        elif self.task == MULTI_LABEL:
            own = {"labels": LABELS, **({"scores": LABELS} if self.ranked else {})}
        else:
            own = {"score": FLOAT}
        return {**own, "exit_layer": INT, "stopped_by": STRING, "error": STRING}

    def arrays(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Returns the columns as (rows,) arrays: strings and lists as objects, `score` float32, `exit_layer` int64."""
        columns = {}
        for name, type_ in self.types.items():
            values = [answer.get(name) for answer in answers]
            if type_ == FLOAT:
                column = np.array([math.nan if value is None else value for value in values], dtype=np.float32)
            elif type_ == INT:
                column = np.array([value or 0 for value in values], dtype=np.int64)
            else:
                column = np.empty(len(values), dtype=object)
                column[:] = values
            columns[self.prefix + name] = column
        return columns

    def arrow_arrays(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the columns as arrays of pyarrow, with nulls where a row has no value."""
        import pyarrow as pa

        ranking = pa.list_(pa.struct([("label", pa.string()), ("score", pa.float32())]))
        arrow = {STRING: pa.string(), FLOAT: pa.float32(), INT: pa.int64(), LABELS: ranking}
        return {
            self.prefix + name: pa.array([answer.get(name) for answer in answers], type=arrow[type_])
            for name, type_ in self.types.items()
        }


def texts_of(
    batch: Batch, text_column: str | None, pair_column: str | None
) -> tuple[list[Text | None], list[str | None]]:
    """Returns the text or pair of each row, and the reason for each row that has none, by the rules of files.

    Args:
        text_column, pair_column: see `Columns.choose`.

    Raises:
        ConfigError: no such column.
        InputError: the batch is of another type.
    """
    chosen = Columns.choose(_names(batch), _SOURCE, text_column, pair_column, None)
    names = [chosen.text] if chosen.pair is None else [chosen.text, chosen.pair]
    values = [_values(batch, name) for name in names]
    found = [chosen.text_of(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]
    return [text for text, _ in found], [problem for _, problem in found]


def with_columns(batch: Batch, columns: AnswerColumns, answers: Sequence[Mapping[str, Any]]) -> Batch:
    """Returns a batch of the same type with the columns of the answers added.

    Raises:
        ConfigError: the batch has a column of such a name.
    """
    taken = sorted({columns.prefix + name for name in columns.types} & set(_names(batch)))
    if taken:
        raise ConfigError(
            f"prefix={columns.prefix!r}: the batch has columns named {', '.join(taken)} already. Choose another prefix "
            'for the columns that are added, such as prefix="predicted_".'
        )
    if isinstance(batch, Mapping):
        return {**batch, **columns.arrays(answers)}
    if _is_arrow(batch):
        for name, column in columns.arrow_arrays(answers).items():
            batch = batch.append_column(name, column)
        return batch
    return batch.assign(**columns.arrays(answers))


def _names(batch: Batch) -> list[str]:
    if isinstance(batch, Mapping):
        return [str(name) for name in batch]
    if _is_arrow(batch):
        return list(batch.column_names)
    if _is_pandas(batch):
        return [str(name) for name in batch.columns]
    raise InputError(
        f"a batch is a {type(batch).__name__}: a dictionary of NumPy arrays, a pyarrow.Table or a pandas.DataFrame is "
        'needed (batch_format="numpy", "pyarrow" or "pandas" in Ray Data).'
    )


def _values(batch: Batch, name: str) -> list[Any]:
    """Returns a column as a list, with `None` for missing values."""
    if isinstance(batch, Mapping):
        values = batch[name]
        values = values.tolist() if hasattr(values, "tolist") else list(values)
    elif _is_arrow(batch):
        return column_values(batch.column(name))
    else:
        values = batch[name].tolist()
    return [None if _is_missing(value) else value for value in values]


def _is_missing(value: Any) -> bool:
    return (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def _is_arrow(batch: Batch) -> bool:
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(batch, pyarrow.Table)


def _is_pandas(batch: Batch) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(batch, pandas.DataFrame)
