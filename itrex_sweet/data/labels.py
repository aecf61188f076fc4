"""Label ids, and their names where there are any."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from itrex_sweet.errors import InputError


def label_ids(
    values: Sequence[Any], places: Sequence[str], names: tuple[str, ...] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    """Ids and names of raw labels: whole numbers stay, anything else is a name."""
    for row, (value, place) in enumerate(zip(values, places, strict=True)):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise InputError(f"{place}: no label", (row,))
        if not isinstance(value, (str, int, float)):
            raise InputError(f"{place}: label {value!r} is neither a number nor a name", (row,))
    numbers = [_whole_number(value) for value in values]
    known = None if names is None else {name: place for place, name in enumerate(names)}
    if known is not None and not any(isinstance(value, str) and value.strip() in known for value in values):
        known = None
    if known is None and all(number is not None for number in numbers):
        ids = [number for number in numbers if number is not None]
    else:
        spelled = [str(value).strip() for value in values]
        names = names or tuple(sorted(set(spelled)))
        by_name = {name: place for place, name in enumerate(names)}
        for row, (name, place) in enumerate(zip(spelled, places, strict=True)):
            if name not in by_name:
                raise InputError(f"{place}: label {name!r} is not one of {', '.join(names)}", (row,))
        return [by_name[name] for name in spelled], names
    for row, (label, place) in enumerate(zip(ids, places, strict=True)):
        if label < 0:
            raise InputError(f"{place}: label {label}; labels count from 0 (a test set without labels?)", (row,))
        if names is not None and label >= len(names):
            raise InputError(
                f"{place}: label {label}; labels go from 0 to {len(names) - 1} ({', '.join(names)})", (row,)
            )
    return ids, names


def _whole_number(value: str | int | float) -> int | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def names_beside(path: Path) -> Sequence[str] | None:
    """`labels` of an `info.json` beside a data file, where there is one."""
    try:
        info = json.loads((path.parent / "info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    names = info.get("labels") if isinstance(info, dict) else None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    return None
