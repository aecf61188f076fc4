"""Labels as sources spell them → ids. The one place that says which label has which id.

A label is a whole number, which is an id or the number of a name; `LABEL_k`, which transformers writes for want of a
name, and which is id `k`; or a name. Names are compared exactly: case and spaces are no spelling variants here."""

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
    """Ids and names of raw labels.

    Args:
        values: as the source has them: numbers, texts or booleans.
        places: file and line of each, for messages.
        names: of the labels there are, by id; `LABEL_0`, `LABEL_1`, ... where they have none; `None` where the source
            itself says what labels there are.
        meanings: the names that the source's numbers stand for: by number, or by value as spelled.
        new_classes: a model is to learn these labels: those that cannot be classes are refused (`classes`).

    Returns:
        ids, and the names by id, or `None` where there are none.

    Raises:
        InputError: labels are missing, are not among the names, or cannot be classes; the message names the first
            place, and `rows` all of them.
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
    """`labels` of an `info.json` beside a data file, where there is one."""
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
    """The names that values stand for; a name that some value stands for may also be there itself."""
    by_value = {**{name: name for name in meanings.values()}, **meanings}
    _refuse_unknown(spelled, places, by_value, tuple(meanings))
    return [by_value[label] for label in spelled]


# ---------------------------------------------------------------------------------- spelling → ids


def _ids_among(spelled: Sequence[str], places: Sequence[str], names: tuple[str, ...]) -> list[int]:
    """Ids among known names: by name, and where no label is one of them, by number."""
    by_name = {name: place for place, name in enumerate(names)}
    numbers = [number_of(label) for label in spelled]
    if None not in numbers and (_are_unnamed(names) or not any(label in by_name for label in spelled)):
        _refuse_above(numbers, places, names)
        if len(names) > 2 and set(numbers) == set(range(1, len(names))):
            logger.warning(
                "Label 0 (%s) does not occur, and all others do: if labels begin at 1, say so with "
                "--label-names 1=NAME,2=NAME.",
                names[0],
            )
        if not _are_unnamed(names) and any(map(is_unnamed, spelled)):
            logger.warning("Labels LABEL_0, LABEL_1, ... are taken for the ids of %s.", _listed(names))
        return numbers
    _refuse_unknown(spelled, places, by_name, names)
    return [by_name[label] for label in spelled]


def _are_unnamed(names: Sequence[str]) -> bool:
    return all(name == f"LABEL_{place}" for place, name in enumerate(names))


def _refuse_above(ids: Sequence[int], places: Sequence[str], names: tuple[str, ...]) -> None:
    """Refuses ids that no name has."""
    _refuse_negative(ids, places)
    rows = tuple(row for row, label in enumerate(ids) if label >= len(names))
    if rows:
        from_one = min(ids) == 1 and max(ids) == len(names)
        raise InputError(
            f"{places[rows[0]]}: label {ids[rows[0]]}; labels go from 0 to {len(names) - 1} ({_listed(names)})"
            + ("; those here begin at 1: say what each means with --label-names 1=NAME,2=NAME" if from_one else ""),
            rows,
        )


def _refuse_negative(ids: Sequence[int], places: Sequence[str]) -> None:
    rows = tuple(row for row, label in enumerate(ids) if label < 0)
    if rows:
        raise InputError(
            f"{places[rows[0]]}: label {ids[rows[0]]}; labels count from 0 (a test set without labels?). If it is "
            "a class, say what each label means: --label-names=-1=NAME,1=NAME",
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
    hint = f" Is it {near[0]!r}? Spell it so." if near else ""
    if _are_unnamed(names) and number_of(label) is None:
        hint = " Which name has which id is not known: say it with --label-names, names in the order of the ids."
    raise InputError(
        f"{places[rows[0]]}: label {cut(label)!r} is not one of {_listed(names)}; the labels here are "
        f"{_listed(sorted(set(spelled), key=by_number))}.{hint}",
        rows,
    )


def _folded(name: str) -> str:
    """A name without case, spaces and punctuation."""
    return "".join(filter(str.isalnum, name.casefold()))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(cut, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)})"


# ---------------------------------------------------------------------------------- labels of a new model


def _ids_of_new_classes(
    spelled: list[str], places: Sequence[str], new_classes: bool
) -> tuple[list[int], tuple[str, ...] | None]:
    """Ids of labels that nothing is known of: numbers stay, names are numbered in their natural order."""
    fraction = next((row for row, label in enumerate(spelled) if is_fraction(label)), None)
    if fraction is not None and all(is_number(label) for label in spelled):
        raise InputError(
            f"{places[fraction]}: label {spelled[fraction]} is no whole number: these look like the targets of a "
            "regression, and only classes can be learned here. If they are classes, name them: --label-names "
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
