"""Checks numbers and sequences given as settings: of Python, NumPy or torch, without importing either."""

from __future__ import annotations

import dataclasses
import math
import numbers
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from itrex_sweet.errors import ConfigError

MAX_PORT = 2**16 - 1


def whole_number(name: str, value: Any, minimum: int) -> int:
    """Converts an integer of any type to `int`.

    Raises:
        ConfigError: another type, booleans and floats included, a number below `minimum`, or beyond 64 bits.
    """
    number = integer(value)
    if number is None or not minimum <= number < 2**63:
        raise ConfigError(f"{name}={_shown(value)}: an integer of at least {minimum} is needed.")
    return number


def port_number(name: str, value: Any) -> int:
    """Converts the number of a TCP port, also 0, to `int`.

    Raises:
        ConfigError: another type or number.
    """
    number = whole_number(name, value, minimum=0)
    if number > MAX_PORT:
        raise ConfigError(f"{name}={_shown(value)}: a port is at most {MAX_PORT}.")
    return number


def integer(value: Any) -> int | None:
    """Converts an integer of any type to `int`; returns `None` for anything else, booleans included."""
    number = scalar(value)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def real_number(name: str, value: Any, meaning: str = "a number") -> float:
    """Converts a real number of any type to `float`; infinity and NaN pass.

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


def finite_number(name: str, value: Any, meaning: str = "a finite number") -> float:
    """Converts a real number of any type to `float`.

    Raises:
        ConfigError: another type, NaN or infinity.
    """
    number = real_number(name, value, meaning)
    if not math.isfinite(number):
        raise ConfigError(f"{name}={number}: it is {meaning}.")
    return number


def positive_number(name: str, value: Any, meaning: str = "a positive number") -> float:
    """Converts a positive, finite number of any type to `float`.

    Raises:
        ConfigError: another type, NaN, infinity, or a number that is not above 0.
    """
    number = real_number(name, value, meaning)
    if not 0.0 < number < math.inf:
        raise ConfigError(f"{name}={number}: it is {meaning}.")
    return number


def non_negative_number(name: str, value: Any, meaning: str = "a number from 0") -> float:
    """Converts a finite number from 0 of any type to `float`.

    Raises:
        ConfigError: another type, NaN, infinity, or a number below 0.
    """
    number = real_number(name, value, meaning)
    if not 0.0 <= number < math.inf:
        raise ConfigError(f"{name}={number}: it is {meaning}.")
    return number


def fraction(name: str, value: Any, meaning: str = "a number in [0, 1]") -> float:
    """Converts a number in [0, 1] of any type to `float`.

    Raises:
        ConfigError: another type, NaN, or a number outside [0, 1].
    """
    number = real_number(name, value, meaning)
    if not 0.0 <= number <= 1.0:
        raise ConfigError(f"{name}={number}: it is {meaning}.")
    return number


def open_fraction(name: str, value: Any, meaning: str = "a number between 0 and 1, both excluded") -> float:
    """Converts a number of any type that lies between 0 and 1, both excluded, to `float`.

    Raises:
        ConfigError: another type, NaN, or another number.
    """
    number = real_number(name, value, meaning)
    if not 0.0 < number < 1.0:
        raise ConfigError(f"{name}={number}: it is {meaning}.")
    return number


def truth(name: str, value: Any) -> bool:
    """Converts a boolean of any type to `bool`.

    Raises:
        ConfigError: another type.
    """
    if not isinstance(scalar(value), bool):
        raise ConfigError(f"{name}={_shown(value)}: True or False, not {type(value).__name__}.")
    return bool(value)


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """Returns one of some words.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}={_shown(value)}: choose one of {', '.join(known)}.")
    return value


def real_numbers(name: str, value: Any) -> tuple[float, ...]:
    """Converts a sequence, or an array or tensor of one dimension, to floats.

    Raises:
        ConfigError: anything else, or an element that is not a real number.
    """
    parts = sequence(value)
    if parts is None:
        raise ConfigError(f"{name}={_shown(value)}: it is a sequence of numbers.")
    return tuple(real_number(name, part) for part in parts)


def sequence(value: Any) -> tuple[Any, ...] | None:
    """Returns the elements of an ordered iterable; `None` for anything else, strings included."""
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


def known_fields(cls: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that are fields of a dataclass; warns of the others and drops them.

    Raises:
        ConfigError: not a mapping.
    """
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{cls.__name__} of {settings!r}: settings are a mapping of names to values.")
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(settings) - known)
    if unknown:
        warnings.warn(f"{cls.__name__} ignores unknown settings: {', '.join(unknown)}.", stacklevel=3)
    return {key: value for key, value in settings.items() if key in known}
