"""Reads the labels of multi-label classification: a set of labels per row, as a vector of ones and zeros.

A source has them in one of these forms:

- one column with a list of names or ids (JSON, Parquet, `datasets`), such as `["politics", "sports"]`; `[]` for none;
- one column with a vector of ones and zeros, as long as there are labels;
- one column with names separated by `|` (CSV), such as `politics|sports`; empty for none;
- one column per label, with 1 or 0, true or false.

A list of the numbers 0 and 1 is a vector if all rows have lists of one length, the number of labels or, for a new
model, at least 2; otherwise its numbers are ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from itrex_sweet.data.classes import by_number, cut
from itrex_sweet.data.spelling import number_of
from itrex_sweet.errors import InputError

SEPARATOR = "|"

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_SHOWN = 20


def label_vectors(
    values: Sequence[Any],
    places: Sequence[str],
    names: tuple[str, ...] | None = None,
    meanings: Sequence[str] | Mapping[str, str] | None = None,
) -> tuple[list[list[int]], tuple[str, ...]]:
    """Returns a vector of ones and zeros per row, and the names of the labels by id.

    Args:
        values: of the label column; or, for a column per label, a mapping from column to value.
        places: file and line of each, for messages.
        names: names of the known labels by id; `None` to take the labels from the source.
        meanings: names for ids, by id; or names for values, by value.

    Raises:
        InputError: labels are missing, unknown, of mixed types or of wrong length; the message names the first place,
            and `rows` holds the row.
    """
    values = [_plain(value) for value in values]
    _refuse_mixed(values, places)
    if isinstance(meanings, Mapping):
        sets = [[meanings.get(name, name) for name in each] for each in _names_per_row(values, places)]
        return _vectors_of_names(sets, places, names or tuple(dict.fromkeys(meanings.values())))
    known = names or (None if meanings is None else tuple(meanings))
    if (length := _vector_length(values, known)) is not None:
        return [[int(value) for value in each] for each in values], known or _unnamed(length)
    sets = _names_per_row(values, places)
    numbers = [[number_of(name) for name in each] for each in sets]
    are_ids = all(number is not None for each in numbers for number in each) and any(numbers)
    if are_ids and not (known and any(name in known for each in sets for name in each)):
        return _vectors_of_ids(numbers, places, known)
    return _vectors_of_names(sets, places, known)


def _plain(value: Any) -> Any:
    """Returns NumPy arrays and scalars as lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value


def _refuse_mixed(values: Sequence[Any], places: Sequence[str]) -> None:
    """Raises an error for a missing value, or one of another type than the first."""
    kinds = {list: "a list", str: "a text", dict: "columns"}
    first = None
    for row, value in enumerate(values):
        kind = next((kind for kind in kinds if isinstance(value, kind)), None)
        if kind is None:
            shown = "no label" if value is None or value != value else f"label {value!r}"
            raise InputError(
                f"{places[row]}: {shown}; multi-label classification needs a list of labels ([] for none), or a text "
                f"of names separated by {SEPARATOR!r}.",
                (row,),
            )
        first = first or kind
        if kind is not first:
            raise InputError(
                f"{places[row]}: the labels are {kinds[kind]}, and in {places[0]} they are {kinds[first]}: write all "
                "rows in one form.",
                (row,),
            )


def _vector_length(values: Sequence[Any], known: Sequence[str] | None) -> int | None:
    """Returns the length of the rows' vectors, or `None` if they are not vectors of ones and zeros."""
    if not all(isinstance(value, list) for value in values):
        return None
    lengths = {len(value) for value in values}
    if len(lengths) != 1 or not all(_is_bit(item) for value in values for item in value):
        return None
    length = lengths.pop()
    return length if (length == len(known) if known else length >= 2) else None


def _is_bit(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and value in (0, 1)


def _names_per_row(values: Sequence[Any], places: Sequence[str]) -> list[list[str]]:
    """Returns the labels of each row, as texts."""
    if isinstance(values[0], dict):
        return [
            [column for column, value in each.items() if _bit(value, column, place, row)]
            for row, (each, place) in enumerate(zip(values, places, strict=True))
        ]
    if isinstance(values[0], str):
        return [[part.strip() for part in each.split(SEPARATOR) if part.strip()] for each in values]
    _refuse_names_beside_ids(values, places)
    sets = []
    for row, each in enumerate(values):
        for item in each:
            is_whole = isinstance(item, (str, int)) or (isinstance(item, float) and item.is_integer())
            if not is_whole or isinstance(item, bool) or (isinstance(item, str) and not item.strip()):
                raise InputError(
                    f"{places[row]}: label {item!r} in {each!r} is neither a name nor an id. A vector of ones and "
                    "zeros has the same length in all rows.",
                    (row,),
                )
        if any(isinstance(item, str) for item in each) and not all(isinstance(item, str) for item in each):
            raise InputError(f"{places[row]}: the labels {each!r} mix names and ids.", (row,))
        if len(set(each)) < len(each) and not isinstance(each[0], str):
            length = f", and the vector of another row {other}" if (other := _other_length(values, each)) else ""
            raise InputError(
                f"{places[row]}: the labels {each!r} repeat an id. If they are a vector of ones and zeros, it has "
                f"{len(each)} entries{length}: all vectors need one per label of the model.",
                (row,),
            )
        sets.append([item.strip() if isinstance(item, str) else str(int(item)) for item in each])
    return sets


def _refuse_names_beside_ids(values: Sequence[list[Any]], places: Sequence[str]) -> None:
    """Raises an error if some rows list names and others numbers."""
    first: tuple[bool, int] | None = None
    for row, each in enumerate(values):
        if each:
            are_names = isinstance(each[0], str)
            first = first or (are_names, row)
            if are_names is not first[0]:
                kinds = ("numbers", "names")
                raise InputError(
                    f"{places[row]}: the labels {each!r} are {kinds[are_names]}, and in {places[first[1]]} they are "
                    f"{kinds[first[0]]}: write all rows in one form.",
                    (row,),
                )


def _other_length(values: Sequence[list[Any]], row: list[Any]) -> int | None:
    """Returns the length of another row that also looks like a vector of ones and zeros, if it differs."""
    vectors = (each for each in values if each and all(map(_is_bit, each)))
    return next((len(each) for each in vectors if len(each) != len(row)), None)


def _bit(value: Any, column: str, place: str, row: int) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    is_missing = value is None or text in ("", "nan") or (isinstance(value, float) and math.isnan(value))
    shown = "no value" if is_missing else repr(value)
    raise InputError(f"{place}: {shown} in the label column {column!r}: it holds 1 or 0.", (row,))


def _vectors_of_ids(
    numbers: list[list[int]], places: Sequence[str], known: tuple[str, ...] | None
) -> tuple[list[list[int]], tuple[str, ...]]:
    found = {number for each in numbers for number in each}
    count = len(known) if known else max(found) + 1
    for row, each in enumerate(numbers):
        if (wrong := next((number for number in each if not 0 <= number < count), None)) is not None:
            range_ = f"ids range from 0 to {count - 1}" + (f" ({_listed(known)})" if known else "")
            raise InputError(f"{places[row]}: label {wrong}; {range_}.", (row,))
    if not known and (missing := sorted(set(range(count)) - found)):
        raise InputError(
            f"no row has label {', '.join(map(str, missing[:_SHOWN]))}: ids start at 0 and have no gaps. If all are "
            "correct, name every label in the order of ids with --label-names NAME,..."
        )
    return [[int(label in each) for label in range(count)] for each in map(set, numbers)], known or _unnamed(count)


def _vectors_of_names(
    sets: list[list[str]], places: Sequence[str], known: tuple[str, ...] | None
) -> tuple[list[list[int]], tuple[str, ...]]:
    names = known or tuple(sorted({name for each in sets for name in each}, key=by_number))
    if not names:
        raise InputError(f"{places[0]}: no row has any label.")
    of_name = {name: label for label, name in enumerate(names)}
    vectors = []
    for row, each in enumerate(sets):
        if (unknown := next((name for name in each if name not in of_name), None)) is not None:
            raise InputError(f"{places[row]}: label {cut(unknown)!r} is not one of {_listed(names)}.", (row,))
        ids = {of_name[name] for name in each}
        vectors.append([int(label in ids) for label in range(len(names))])
    return vectors, names


def _unnamed(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{label}" for label in range(count))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(cut, names[:_SHOWN])) + (f", ... ({len(names)})" if len(names) > _SHOWN else "")
