"""Reads numbers given as settings: of Python, NumPy or torch. Imports neither."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from itrex_sweet.errors import ConfigError


def whole_number(name: str, value: Any, least: int) -> int:
    """An integer of any type as an `int`.

    Raises:
        ConfigError: another type, booleans and floats included, or below `least`.
    """
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ConfigError(f"{name}={_shown(value)}: it is a whole number, {least} or more.")
    return number


def real_number(name: str, value: Any) -> float:
    """A real number of any type as a `float`, infinity and NaN included: whoever has a range refuses them.

    Raises:
        ConfigError: another type, booleans and strings included.
    """
    number = _scalar(value)
    if isinstance(number, numbers.Real) and not isinstance(number, bool):
        try:
            return float(number)
        except OverflowError:
            pass
    raise ConfigError(f"{name}={_shown(value)}: it is a number{', without quotes' if isinstance(value, str) else ''}.")


def real_numbers(name: str, value: Any) -> tuple[float, ...]:
    """A sequence, array or tensor of one dimension, as floats.

    Raises:
        ConfigError: anything else, or a part that is no real number.
    """
    parts = sequence(value)
    if parts is None:
        raise ConfigError(f"{name}={_shown(value)}: it is a sequence of numbers.")
    return tuple(real_number(name, part) for part in parts)


def sequence(value: Any) -> tuple[Any, ...] | None:
    """The parts of an ordered iterable; `None` for anything else, strings included."""
    if isinstance(value, (str, bytes, Mapping, set, frozenset)) or not isinstance(value, Iterable):
        return None
    try:
        return tuple(value)
    except TypeError:  # an array of no dimension
        return None


def _scalar(value: Any) -> Any:
    """The number in a NumPy scalar, or in an array or tensor of no dimension; anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
