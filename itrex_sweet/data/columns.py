"""Which columns hold the text, or the two of a pair, and the label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.errors import ConfigError

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

_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_KINDS = 256  # of records with other columns each, that are remembered


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
            f"{source}: no column is called as texts usually are ({', '.join(TEXT_COLUMNS[:3])}, "
            f"{'+'.join(PAIR_COLUMNS[0])}, ...). It has: {', '.join(columns) or 'none'}. "
            "Name the one to read with text_column (--text-column); the first line of a table is its header."
        )

    def text_of(self, record: Mapping[str, Any]) -> tuple[Text | None, str | None]:
        """The text or pair of one record, or what is wrong with it."""
        parts = []
        for name in (self.text,) if self.pair is None else (self.text, self.pair):
            value = record.get(name)
            if value is None:
                return None, f"no value in column {name!r}"
            if not isinstance(value, str):
                advice = "; give one object per text" if isinstance(value, (list, dict)) else ""
                return None, f"column {name!r} holds {type(value).__name__}, not a text{advice}"
            if not value.strip():
                return None, f"the text in column {name!r} is empty" if len(record) > 1 else "the text is empty"
            if _SURROGATE.search(value):
                where = f"column {name!r} is " if len(record) > 1 else ""
                return None, f"{where}not valid UTF-8, or holds half of a surrogate pair"
            parts.append(value)
        return (parts[0] if self.pair is None else (parts[0], parts[1])), None


class ColumnChoice:
    """Chooses the columns of each record, once for all that have the same.

    Args:
        source: for messages.
        text_column, pair_column, label_column: as in `Columns.choose`.
    """

    def __init__(self, source: str, text_column: str | None, pair_column: str | None, label_column: str | None):
        self._arguments = (source, text_column, pair_column, label_column)
        self._of_names: dict[tuple[str, ...], Columns] = {}

    def of(self, record: Mapping[str, Any]) -> Columns:
        """The columns of a record; those of the first where none are called as texts usually are.

        Raises:
            ConfigError: it is the first, and has no column that could be meant.
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
            if len(self._of_names) < _MOST_KINDS:
                self._of_names[names] = columns
        return columns


def _by_lower_case(names: Sequence[str]) -> dict[str, str]:
    """Lower case → the first name so spelled; one that is in lower case itself wins."""
    return {**{name.lower(): name for name in reversed(names)}, **{name: name for name in names if name.islower()}}


def no_such_column(source: str, name: str, columns: Sequence[str], what: str, option: str) -> str:
    listed = ", ".join(columns) or "none"
    return f"{source} has no column {name!r}; it has: {listed}. Name that of the {what} with {option}."
