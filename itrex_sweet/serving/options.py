"""Options of a request: where its texts may stop, its deadline and priority, from body and headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.errors import ConfigError, RequestError
from itrex_sweet.serving.failures import VALIDATION

NAMES = ("threshold", "quality", "max_exit", "deadline_ms", "priority")
HEADERS = {
    b"x-threshold": "threshold",
    b"x-quality": "quality",
    b"x-max-exit": "max_exit",
    b"x-deadline-ms": "deadline_ms",
    b"x-priority": "priority",
}
MAX_DEADLINE_MS = 1e9
_MAX_PRIORITY = 100


@dataclass(frozen=True)
class Options:
    """Options of one request.

    Args:
        threshold, quality, max_exit: as of `Classifier.predict`.
        deadline_ms: milliseconds from the arrival of the request.
        priority: requests with a lower number are served first.
        truncate: whether longer texts are cut, `None` for the server's default.
        max_length: tokens to which texts are cut.
    """

    threshold: float | tuple[float, ...] | None = None
    quality: float | None = None
    max_exit: int | None = None
    deadline_ms: float | None = None
    priority: int = 0
    truncate: bool | None = None
    max_length: int | None = None

    @property
    def is_stored_policy(self) -> bool:
        """True if the texts stop where the model's own policy says."""
        return self.threshold is None and self.quality is None and self.max_exit is None


_NONE = Options()


def options_of(fields: Mapping[str, Any], headers: Mapping[bytes, bytes], **more: Any) -> Options:
    """Reads options from the fields of a body, and from headers such as `X-Deadline-Ms`, which the body overrides.

    Args:
        fields: may hold others as well.
        more: further fields of `Options`, checked.

    Raises:
        RequestError: a value has a wrong type or is out of range.
    """
    given = {name: headers[header] for header, name in HEADERS.items() if header in headers}
    if given:
        given = {name: _number(name, value) for name, value in given.items()}
    for name in NAMES:
        if name in fields and fields[name] is not None:
            given[name] = fields[name]
    if not given:
        return Options(**more) if more else _NONE
    try:
        return Options(**_checked(given), **more)
    except ConfigError as error:
        raise RequestError(VALIDATION, str(error)) from None


def flag(fields: Mapping[str, Any], name: str, default: bool | None = False) -> bool | None:
    """Returns a boolean field.

    Raises:
        RequestError: another type.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise RequestError(VALIDATION, f"{name}: true or false, not {value!r:.80}.")
    return value


def checked_deadline(name: str, value: Any) -> float:
    """Converts a deadline in milliseconds of any type to `float`.

    Raises:
        ConfigError: another type, NaN, or a number that is not positive or above `MAX_DEADLINE_MS`.
    """
    number = real_number(name, value)
    if not 0.0 < number <= MAX_DEADLINE_MS:
        raise ConfigError(f"{name}={number}: a positive number of milliseconds, up to {MAX_DEADLINE_MS:g}.")
    return number


def _number(name: str, value: bytes) -> float | int:
    try:
        text = value.decode("ascii").strip()
        if "_" in text:  # which `int` and `float` take
            raise ValueError
        return int(text) if text.lstrip("+-").isdigit() and len(text) < 19 else float(text)
    except ValueError:
        header = "X-" + name.replace("_", "-").title()
        raise RequestError(VALIDATION, f"{header}: {value[:40].decode('latin-1')!r} is not a number.") from None


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    checked = dict(given)
    if isinstance(given.get("threshold"), list):
        checked["threshold"] = tuple(real_number("threshold", value) for value in given["threshold"])
    elif "threshold" in given:
        checked["threshold"] = real_number("threshold", given["threshold"])
    if "quality" in given:
        checked["quality"] = real_number("quality", given["quality"])
    if "max_exit" in given:
        checked["max_exit"] = whole_number("max_exit", given["max_exit"], minimum=1)
    if "priority" in given:
        checked["priority"] = whole_number("priority", given["priority"], minimum=-_MAX_PRIORITY)
        if checked["priority"] > _MAX_PRIORITY:
            raise ConfigError(f"priority={checked['priority']}: at most {_MAX_PRIORITY}.")
    if "deadline_ms" in given:
        checked["deadline_ms"] = checked_deadline("deadline_ms", given["deadline_ms"])
    return checked
