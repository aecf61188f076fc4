"""Reads the targets of a regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from itrex_sweet.data.classes import cut
from itrex_sweet.errors import InputError


def regression_targets(values: Sequence[Any], places: Sequence[str]) -> list[float]:
    """Returns the numbers of a label column.

    Args:
        values: numbers, or texts of numbers.
        places: file and line of each, for messages.

    Raises:
        InputError: a value that is missing, not a number or not finite; the message names the first place, and `rows`
            holds all rows.
    """
    numbers = [_number(value) for value in values]
    wrong = tuple(row for row, number in enumerate(numbers) if number is None or not math.isfinite(number))
    if wrong:
        value = values[wrong[0]]
        shown = "no label" if value is None or not str(value).strip() else f"label {cut(str(value))}"
        more = f" So are {len(wrong) - 1} other rows." if len(wrong) > 1 else ""
        raise InputError(
            f"{places[wrong[0]]}: {shown} is not a finite number, the target of a regression.{more} Correct or remove "
            "these rows.",
            wrong,
        )
    return numbers


def _number(value: Any) -> float | None:
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()  # of NumPy
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
