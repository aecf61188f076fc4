"""Normalizes the labels of a source: numbers, names and missing values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from itrex_sweet.errors import InputError

_UNNAMED = re.compile(r"LABEL_(0|[1-9][0-9]{0,17})")
_WHOLE = re.compile(r"([+-]?[0-9]{1,300})(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
# Missing values as spreadsheets, pandas and databases write them, in lower case.
_MISSING = {"", "nan", "na", "n/a", "#n/a", "<na>", "none", "null", "nat"}


def spelled_labels(values: Sequence[Any], places: Sequence[str], known: set[str]) -> list[str]:
    """Returns labels as strings: integers without decimal point and sign, other values unchanged.

    Args:
        known: known names, which are kept unchanged even if they look like numbers or missing values.
    """
    missing = [row for row, value in enumerate(values) if _is_missing(value, known)]
    if missing:
        first = values[missing[0]]
        shown = "" if first is None or not str(first).strip() else f" ({first})"
        lines = ", ".join(places[row] for row in missing[:5]) + (", ..." if len(missing) > 5 else "")
        more = f" {len(missing)} of {len(values)} rows have no label: {lines}." if len(missing) > 1 else ""
        raise InputError(
            f"{places[missing[0]]}: no label{shown}.{more} Remove these rows, or if it is a class, name it with "
            "label_names (--label-names).",
            tuple(missing),
        )
    spelled = []
    for row, (value, place) in enumerate(zip(values, places, strict=True)):
        if hasattr(value, "item") and not getattr(value, "shape", ()):
            value = value.item()  # of NumPy
        if not isinstance(value, (str, int, float)):
            is_list = isinstance(value, (list, tuple))
            many = " (several labels per row need the task multi-label, --task multi-label)" if is_list else ""
            raise InputError(f"{place}: label {value!r} is not a number or a string{many}", (row,))
        spelled.append(_spelling(value, known))
    return spelled


def _is_missing(value: Any, known: set[str]) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _MISSING and (value.strip() not in known or not value.strip())
    return value is None or (isinstance(value, float) and math.isnan(value))


def _spelling(value: str | int | float, known: set[str]) -> str:
    if isinstance(value, bool):
        word = str(value)
        return next((name for name in (word, word.lower(), word.upper()) if name in known), str(int(value)))
    text = str(value).strip()
    whole = None if text in known else _WHOLE.fullmatch(text)
    return text if whole is None else str(int(whole[1]))


def number_of(label: str) -> int | None:
    """Returns the id of a label that is an integer or `LABEL_k`, otherwise `None`."""
    unnamed = _UNNAMED.fullmatch(label)
    if unnamed:
        return int(unnamed[1])
    return int(label) if _WHOLE.fullmatch(label) else None


def is_unnamed(label: str) -> bool:
    """Returns whether a label is `LABEL_k`, the default name in transformers."""
    return _UNNAMED.fullmatch(label) is not None


def is_number(label: str) -> bool:
    """Returns whether a label is a number."""
    return _NUMBER.fullmatch(label) is not None


def is_fraction(label: str) -> bool:
    return _NUMBER.fullmatch(label) is not None and _WHOLE.fullmatch(label) is None
