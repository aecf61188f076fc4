"""Checks that labels can be the classes of a new model, to refuse typing errors, dates and prices before training."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

from itrex_sweet.errors import InputError

logger = logging.getLogger(__name__)

_MIN_COMMON = 20  # rows of the most frequent class from which a class with a single row is suspicious
_MIN_LETTERS = 5  # of two names that are compared for typing errors
_SHOWN = 10
_MAX_CHARACTERS = 60  # of a label in a message
_MAX_UNCHECKED = 50  # number of labels up to which it is not compared with the number of rows
_RENAME = "name the values with --label-names VALUE=NAME,..."


def by_number(name: str) -> list[tuple[int, int, str]]:
    """Returns a sort key for the natural order of names: `class2` before `class10`."""
    key = []
    for place, part in enumerate(re.split(r"([0-9]+)", name)):
        if place % 2:
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part))
    return [*key, (2, 0, name)]


def refuse_unlikely_classes(labels: Sequence[int] | Sequence[str], places: Sequence[str]) -> None:
    """Raises an error for labels that are probably not classes, and warns of classes with a single row.

    Args:
        labels: ids, or names.
        places: file and line of each.

    Raises:
        InputError: ids have gaps or start at 1; there are nearly as many labels as rows; or two names differ only in
            case, spaces or a typing error.
    """
    counts = Counter(labels)
    if len(counts) > _MAX_UNCHECKED and len(counts) > len(labels) / 2:
        raise InputError(
            f"{len(counts)} different labels in {len(labels)} rows, such as {_listed(list(counts)[:3])}: this is not a "
            "column of classes, or holds the targets of a regression (--task regression). If they are classes, "
            f"{_RENAME}."
        )
    if isinstance(labels[0], int):
        _refuse_gaps(labels, places)
    else:
        _refuse_variants(counts, labels, places)
    _warn_of_single_rows(counts, labels, places)


def _refuse_gaps(labels: Sequence[int], places: Sequence[str]) -> None:
    found = sorted(set(labels))
    if found == list(range(len(found))):
        return
    rows = tuple(row for row, label in enumerate(labels) if label >= len(found))
    if found == list(range(1, len(found) + 1)):
        raise InputError(
            f"{places[0]}: label {labels[0]}; labels range from 1 to {len(found)}, but ids start at 0. To keep them, "
            f"{_RENAME}, such as --label-names {','.join(f'{label}=NAME' for label in found[:3])}.",
            rows,
        )
    absent = []
    for before, after in zip([-1, *found], found, strict=False):
        if after - before > 1:
            absent.append(str(before + 1) if after - before == 2 else f"{before + 1} to {cut(str(after - 1))}")
    raise InputError(
        f"{places[rows[0]]}: label {cut(str(labels[rows[0]]))}, but no row has {', '.join(absent[:_SHOWN])}: ids start "
        "at 0 and have no gaps. If all are correct, name every class in the order of ids with --label-names NAME,...; "
        f"or {_RENAME}.",
        rows,
    )


def _refuse_variants(counts: Counter[str], labels: Sequence[str], places: Sequence[str]) -> None:
    """Raises an error for names that are two spellings of one name."""
    by_folded: dict[str, str] = {}
    for name in counts:
        folded = " ".join(name.casefold().split())
        if other := by_folded.get(folded):
            rare, common_name = sorted((name, other), key=counts.__getitem__)
            _refuse_variant(rare, common_name, "case or spaces", counts, labels, places)
        by_folded[folded] = name
    common = [name for name, count in counts.items() if count >= _MIN_COMMON]
    for name in (name for name, count in counts.items() if count == 1):
        if other := next((other for other in common if _is_typing_error(other, name)), None):
            _refuse_variant(name, other, "one character, probably a typing error", counts, labels, places)


def _refuse_variant(
    name: str, other: str, what: str, counts: Counter[str], labels: Sequence[str], places: Sequence[str]
) -> None:
    rows = tuple(row for row, label in enumerate(labels) if label == name)
    raise InputError(
        f"{places[rows[0]]}: label {name!r} ({counts[name]} rows) differs from {other!r} ({counts[other]} rows) in "
        f"{what}. Use one spelling; if they are two classes, name all classes with --label-names NAME,...",
        rows,
    )


def _is_typing_error(word: str, name: str) -> bool:
    """Returns whether a name differs from a word by one letter (no digit) left out, added, changed or swapped."""
    if min(len(word), len(name)) < _MIN_LETTERS:
        return False
    start = next((place for place, (one, two) in enumerate(zip(word, name, strict=False)) if one != two), None)
    start = min(len(word), len(name)) if start is None else start
    one, two = word[start:], name[start:]
    edits = {
        "left out": one[1:] == two,
        "put in": one == two[1:],
        "changed": one[1:] == two[1:],
        "swapped": one[2:] == two[2:] and one[:2] == two[1::-1],
    }
    return any(edits.values()) and not any(map(str.isdigit, one[:1] + two[:1]))


def _warn_of_single_rows(
    counts: Counter[str] | Counter[int], labels: Sequence[str] | Sequence[int], places: Sequence[str]
) -> None:
    single = [name for name, count in counts.items() if count == 1]
    if not single or max(counts.values()) < _MIN_COMMON:
        return
    shown = ", ".join(f"{name!r} ({places[labels.index(name)]})" for name in single[:_SHOWN])
    logger.warning(
        "%d of %d labels occur in one row only: %s%s. Check that they are classes.",
        len(single),
        len(counts),
        shown,
        ", ..." * (len(single) > _SHOWN),
    )


def _listed(values: Sequence[str] | Sequence[int]) -> str:
    return ", ".join(cut(str(value)) for value in values)


def cut(label: str) -> str:
    """Shortens a label for a message: a whole text may have been read as a label."""
    return label if len(label) <= _MAX_CHARACTERS else f"{label[:_MAX_CHARACTERS]}..."
