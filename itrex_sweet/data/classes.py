"""Checks that labels can be the classes of a new model, before one is trained on a typo, a date or a price."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence

from itrex_sweet.errors import InputError

logger = logging.getLogger(__name__)

_RARE = 20  # rows of the commonest class, from which on a class of a single row is worth a word
_LEAST_LETTERS = 5  # of names that may be one another's typing error
_SHOWN = 10
_MOST_CHARACTERS = 60  # of a label in a message
_MOST_WITHOUT_A_WORD = 50
_RENAME = "--label-names VALUE=NAME,... says which values there are and what they mean"


def by_number(name: str) -> list[tuple[int, int, str]]:
    """Key that sorts names in their natural order: `class2` before `class10`."""
    key = []
    for place, part in enumerate(re.split(r"([0-9]+)", name)):
        if place % 2:
            digits = part.lstrip("0")
            key.append((0, len(digits), digits))
        elif part:
            key.append((1, 0, part))
    return [*key, (2, 0, name)]


def refuse_unlikely_classes(labels: Sequence[int] | Sequence[str], places: Sequence[str]) -> None:
    """Refuses labels that cannot be meant as classes, and warns of those that may not be.

    Args:
        labels: ids, or names.
        places: file and line of each.

    Raises:
        InputError: ids leave gaps or begin at 1; there are about as many labels as rows; or a name differs from another
            in case, spaces or a typing error.
    """
    counts = Counter(labels)
    if len(counts) > _MOST_WITHOUT_A_WORD and len(counts) > len(labels) / 2:
        raise InputError(
            f"{len(counts)} different labels in {len(labels)} rows, such as {_listed(list(counts)[:3])}: that is a "
            f"column of something else, or the targets of a regression. If they are classes, {_RENAME}."
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
            f"{places[0]}: label {labels[0]}; the labels go from 1 to {len(found)}, and ids count from 0. {_RENAME}, "
            f"such as --label-names {','.join(f'{label}=NAME' for label in found[:3])}.",
            rows,
        )
    absent = []
    for before, after in zip([-1, *found], found, strict=False):
        if after - before > 1:
            absent.append(str(before + 1) if after - before == 2 else f"{before + 1} to {cut(str(after - 1))}")
    raise InputError(
        f"{places[rows[0]]}: label {cut(str(labels[rows[0]]))}, but no row has {', '.join(absent[:_SHOWN])}: ids go "
        "from 0 without gaps. If all are right, name every class: --label-names NAME,... in the order of ids; or "
        f"{_RENAME}.",
        rows,
    )


def _refuse_variants(counts: Counter[str], labels: Sequence[str], places: Sequence[str]) -> None:
    """Refuses names that are one name spelled in two ways."""
    by_folded: dict[str, str] = {}
    for name in counts:
        folded = " ".join(name.casefold().split())
        if other := by_folded.get(folded):
            rarer, commoner = sorted((name, other), key=counts.__getitem__)
            _refuse_variant(rarer, commoner, "case or spaces", counts, labels, places)
        by_folded[folded] = name
    common = [name for name, count in counts.items() if count >= _RARE]
    for name in (name for name, count in counts.items() if count == 1):
        if other := next((other for other in common if _is_typed_for(other, name)), None):
            _refuse_variant(name, other, "what may be a typing error", counts, labels, places)


def _refuse_variant(
    name: str, other: str, what: str, counts: Counter[str], labels: Sequence[str], places: Sequence[str]
) -> None:
    rows = tuple(row for row, label in enumerate(labels) if label == name)
    raise InputError(
        f"{places[rows[0]]}: label {name!r} ({counts[name]} rows) differs from {other!r} ({counts[other]} rows) in "
        f"{what}. Spell both alike; if they are two classes, name all: --label-names NAME,...",
        rows,
    )


def _is_typed_for(word: str, name: str) -> bool:
    """True if a name is a longer word with one letter, no digit, left out, put in, changed or swapped with the next."""
    if min(len(word), len(name)) < _LEAST_LETTERS:
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
    if not single or max(counts.values()) < _RARE:
        return
    shown = ", ".join(f"{name!r} ({places[labels.index(name)]})" for name in single[:_SHOWN])
    logger.warning(
        "%d of %d labels occur in a single row each: %s%s. Are they meant?",
        len(single),
        len(counts),
        shown,
        ", ..." * (len(single) > _SHOWN),
    )


def _listed(values: Sequence[str] | Sequence[int]) -> str:
    return ", ".join(cut(str(value)) for value in values)


def cut(label: str) -> str:
    """A label for a message, where a whole text may have been taken for one."""
    return label if len(label) <= _MOST_CHARACTERS else f"{label[:_MOST_CHARACTERS]}..."
