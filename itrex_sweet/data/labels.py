"""Maps the labels of a source to ids.

A label is an integer, which is an id or the number of a name; `LABEL_k`, the default name in transformers, which is id
`k`; or a name. Names are compared exactly, including case and spaces.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from itrex_sweet.data.classes import by_number, cut, refuse_unlikely_classes
from itrex_sweet.data.spelling import is_fraction, is_number, is_unnamed, number_of, spelled_labels
from itrex_sweet.errors import InputError

logger = logging.getLogger(__name__)

Meanings = Sequence[str] | Mapping[str, str]

_SHOWN = 20


def label_ids(
    values: Sequence[Any],
    places: Sequence[str],
    names: tuple[str, ...] | None = None,
    meanings: Meanings | None = None,
    *,
    new_classes: bool = False,
) -> tuple[list[int], tuple[str, ...] | None]:
    """Returns the ids and names of labels.

    Args:
        values: the values in the source: numbers, texts or booleans.
        places: file and line of each, for messages.
        names: names of the known labels by id, `LABEL_0`, `LABEL_1`, ... for labels without names; `None` to take the
            labels from the source.
        meanings: names for the numbers in the source, by number; or names for its values, by value.
        new_classes: the labels are those of a new model; raise an error if they are probably not classes (`classes`).

    Returns:
        The id of each value, and the names by id, or `None` if there are no names.

    Raises:
        InputError: labels are missing, unknown, or not classes; the message names the first place, and `rows` holds
            all rows.
    """
    known = {*(names or ()), *_all_names(meanings)}
    spelled = spelled_labels(values, places, known)
    if isinstance(meanings, Mapping):
        spelled = _looked_up(spelled, places, meanings)
        meanings = tuple(dict.fromkeys(meanings.values()))
    if meanings is not None and not (names is not None and set(spelled) <= set(names)):
        ids = _ids_among(spelled, places, tuple(meanings))
        if names is None or names == tuple(meanings):
            return ids, tuple(meanings)
        if not _are_unnamed(names):
            return _ids_among([meanings[label] for label in ids], places, names), names
        _refuse_above(ids, places, names)
        return ids, names
    if names is not None:
        return _ids_among(spelled, places, names), names
    return _ids_of_new_classes(spelled, places, new_classes)


def names_beside(path: Path) -> Sequence[str] | None:
    """Returns the list `labels` of an `info.json` in the folder of a data file, or `None`."""
    try:
        info = json.loads((path.parent / "info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    names = info.get("labels") if isinstance(info, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return names if len(set(names)) == len(names) else None


def _all_names(meanings: Meanings | None) -> Iterable[str]:
    if isinstance(meanings, Mapping):
        return (*meanings, *meanings.values())
    return meanings or ()


def _looked_up(spelled: list[str], places: Sequence[str], meanings: Mapping[str, str]) -> list[str]:
    """Returns the names for values; the names themselves are also accepted as values."""
    by_value = {**{name: name for name in meanings.values()}, **meanings}
    _refuse_unknown(spelled, places, by_value, tuple(meanings))
    return [by_value[label] for label in spelled]


# ---------------------------------------------------------------------------------- spelling → ids


def _ids_among(spelled: Sequence[str], places: Sequence[str], names: tuple[str, ...]) -> list[int]:
    """Returns ids among known names: by name, or by number if no label is a known name."""
    by_name = {name: place for place, name in enumerate(names)}
    numbers = [number_of(label) for label in spelled]
    if None not in numbers and (_are_unnamed(names) or not any(label in by_name for label in spelled)):
        _refuse_above(numbers, places, names)
        if len(names) > 2 and set(numbers) == set(range(1, len(names))):
            logger.warning(
                "Label 0 (%s) does not occur, and all others do: if the labels start at 1, pass "
                "--label-names 1=NAME,2=NAME.",
                names[0],
            )
        if not _are_unnamed(names) and any(map(is_unnamed, spelled)):
            logger.warning("Labels LABEL_0, LABEL_1, ... are used as the ids of %s.", _listed(names))
        return numbers
    _refuse_unknown(spelled, places, by_name, names)
    return [by_name[label] for label in spelled]


def _are_unnamed(names: Sequence[str]) -> bool:
    return all(name == f"LABEL_{place}" for place, name in enumerate(names))


def _refuse_above(ids: Sequence[int], places: Sequence[str], names: tuple[str, ...]) -> None:
    """Raises an error for ids without a name."""
    _refuse_negative(ids, places)
    rows = tuple(row for row, label in enumerate(ids) if label >= len(names))
    if rows:
        from_one = min(ids) == 1 and max(ids) == len(names)
        raise InputError(
            f"{places[rows[0]]}: label {ids[rows[0]]}; labels range from 0 to {len(names) - 1} ({_listed(names)})"
            + ("; the labels here start at 1: name them with --label-names 1=NAME,2=NAME" if from_one else ""),
            rows,
        )


def _refuse_negative(ids: Sequence[int], places: Sequence[str]) -> None:
    rows = tuple(row for row, label in enumerate(ids) if label < 0)
    if rows:
        raise InputError(
            f"{places[rows[0]]}: label {ids[rows[0]]}; labels start at 0 (a test set without labels?). If it is "
            "a class, name every label: --label-names=-1=NAME,1=NAME",
            rows,
        )


def _refuse_unknown(
    spelled: Sequence[str], places: Sequence[str], known: Mapping[str, Any], names: tuple[str, ...]
) -> None:
    rows = tuple(row for row, label in enumerate(spelled) if label not in known)
    if not rows:
        return
    label = spelled[rows[0]]
    near = [name for name in names if _folded(name) == _folded(label)]
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if _are_unnamed(names) and number_of(label) is None:
        hint = " The model has no names for its labels: pass them with --label-names, in the order of the ids."
    raise InputError(
        f"{places[rows[0]]}: label {cut(label)!r} is not one of {_listed(names)}; the labels here are "
        f"{_listed(sorted(set(spelled), key=by_number))}.{hint}",
        rows,
    )


def _folded(name: str) -> str:
    """Returns a name without case, spaces and punctuation."""
    return "".join(filter(str.isalnum, name.casefold()))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(cut, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)})"


# ---------------------------------------------------------------------------------- labels of a new model


def _ids_of_new_classes(
    spelled: list[str], places: Sequence[str], new_classes: bool
) -> tuple[list[int], tuple[str, ...] | None]:
    """Returns ids of labels without known names: numbers are kept, names are numbered in their natural order."""
    fraction = next((row for row, label in enumerate(spelled) if is_fraction(label)), None)
    if fraction is not None and all(is_number(label) for label in spelled):
        raise InputError(
            f"{places[fraction]}: label {spelled[fraction]} is not an integer: these look like the targets of a "
            "regression: pass --task regression. If they are classes, name them with --label-names "
            "VALUE=NAME,...",
            (fraction,),
        )
    numbers = [number_of(label) for label in spelled]
    if None not in numbers:
        _refuse_negative(numbers, places)
        if new_classes:
            refuse_unlikely_classes(numbers, places)
        return numbers, None
    if new_classes:
        refuse_unlikely_classes(spelled, places)
    names = tuple(sorted(Counter(spelled), key=by_number))
    by_name = {name: place for place, name in enumerate(names)}
    return [by_name[label] for label in spelled], names
