"""Finds the columns that hold the text, or the two texts of a pair, and the label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.errors import ConfigError

Text = str | tuple[str, str]

# Common column names, the most likely first. A pair is used only if both columns exist.
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

_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_CACHED = 256  # sets of columns whose choice is cached


@dataclass(frozen=True)
class Columns:
    """The columns of a source.

    Args:
        text: column of the text, or of the first text of a pair.
        pair: column of the second text of a pair.
        label: column of the label.
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
        """Finds the columns by the given names, otherwise by the common names in upper or lower case.

        Raises:
            ConfigError: a given column does not exist, or no column has a common name.
        """
        for name, what, option in (
            (text_column, "texts", "--text-column"),
            (pair_column, "texts", "--pair-column"),
        ):
            if name is not None and name not in columns:
                raise ConfigError(no_such_column(source, name, columns, what, option))
        if pair_column is not None and text_column is None:
            raise ConfigError(f"pair_column={pair_column!r} needs text_column, the first text of the pair.")
        label = None
        if label_column is not None:
            label = _by_lower_case(columns).get(label_column.lower()) if label_column not in columns else label_column
            if label is None and label_column != LABEL_COLUMN:
                raise ConfigError(no_such_column(source, label_column, columns, "labels", "--label-column"))
        if text_column is not None:
            return cls(text_column, pair_column, label)
        by_lower_case = _by_lower_case(columns)
        for first, second in PAIR_COLUMNS:
            if first in by_lower_case and second in by_lower_case:
                return cls(by_lower_case[first], by_lower_case[second], label)
        for name in TEXT_COLUMNS:
            if name in by_lower_case:
                return cls(by_lower_case[name], None, label)
        raise ConfigError(
            f"{source}: no column has a common name for texts ({', '.join(TEXT_COLUMNS[:3])}, "
            f"{'+'.join(PAIR_COLUMNS[0])}, ...). It has: {', '.join(columns) or 'none'}. "
            "Name the column with text_column (--text-column). The first line of a table is its header."
        )

    def text_of(self, record: Mapping[str, Any]) -> tuple[Text | None, str | None]:
        """Returns the text or the pair of a record, or `None` and the reason why it has none."""
        parts = []
        for name in (self.text,) if self.pair is None else (self.text, self.pair):
            value = record.get(name)
            if value is None:
                return None, f"no value in column {name!r}"
            if not isinstance(value, str):
                advice = "; write one object per text" if isinstance(value, (list, dict)) else ""
                return None, f"column {name!r} holds {type(value).__name__}, not a text{advice}"
            if not value.strip():
                return None, f"the text in column {name!r} is empty" if len(record) > 1 else "the text is empty"
            if _SURROGATE.search(value):
                where = f"column {name!r} is " if len(record) > 1 else ""
                return None, f"{where}not valid UTF-8, or contains half of a surrogate pair"
            parts.append(value)
        return (parts[0] if self.pair is None else (parts[0], parts[1])), None


class ColumnChoice:
    """Chooses the columns of records; caches the choice for records with the same columns.

    Args:
        source: name of the source, for messages.
        text_column, pair_column, label_column: see `Columns.choose`.
    """

    def __init__(self, source: str, text_column: str | None, pair_column: str | None, label_column: str | None):
        self._arguments = (source, text_column, pair_column, label_column)
        self._of_names: dict[tuple[str, ...], Columns] = {}

    def of(self, record: Mapping[str, Any]) -> Columns:
        """Returns the columns of a record, or those of the first record if none has a common name.

        Raises:
            ConfigError: the first record has no matching column.
        """
        names = tuple(record)
        columns = self._of_names.get(names)
        if columns is None:
            try:
                columns = Columns.choose(names, *self._arguments)
            except ConfigError:
                if not self._of_names:
                    raise
                return next(iter(self._of_names.values()))
            if len(self._of_names) < _MAX_CACHED:
                self._of_names[names] = columns
        return columns


def _by_lower_case(names: Sequence[str]) -> dict[str, str]:
    """Returns names by their lower-case form: the name that is lower case itself, otherwise the first."""
    return {**{name.lower(): name for name in reversed(names)}, **{name: name for name in names if name.islower()}}


def no_such_column(source: str, name: str, columns: Sequence[str], what: str, option: str) -> str:
    """Returns the error message for a column that does not exist."""
    listed = ", ".join(columns) or "none"
    return f"{source} has no column {name!r}; it has: {listed}. Name the column of the {what} with {option}."
