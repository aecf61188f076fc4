"""Reads numbers given as settings: of Python, NumPy or torch. Imports neither."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from itrex_sweet.errors import ConfigError


def whole_number(name: str, value: Any, least: int) -> int:
    """An integer of any type as an `int`.

    Raises:
        ConfigError: another type, booleans and floats included, below `least`, or beyond 64 bits.
    """
    number = integer(value)
    if number is None or not least <= number < 2**63:
        raise ConfigError(f"{name}={_shown(value)}: it is a whole number, {least} or more.")
    return number


def integer(value: Any) -> int | None:
    """An integer of any type as an `int`; `None` for anything else, booleans included."""
    number = scalar(value)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def real_number(name: str, value: Any, meaning: str = "a number") -> float:
    """A real number of any type as a `float`, infinity and NaN included: whoever has a range refuses them.

    Raises:
        ConfigError: another type, booleans and strings included.
    """
    number = scalar(value)
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise ConfigError(f"{name}={_shown(value)}: it is {meaning}, not {type(value).__name__}.")
    try:
        return float(number)
    except OverflowError:
        raise ConfigError(f"{name}={_shown(value)}: it is {meaning}, and this one is too large.") from None


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


def scalar(value: Any) -> Any:
    """Unpacks a NumPy scalar, or an array or tensor of no dimension; returns anything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write integers of very many digits
        text = f"{type(value).__name__} of very many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."
