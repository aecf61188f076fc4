"""Checks of single values of an artifact's JSON files, with field name and file in the errors."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from itrex_sweet.errors import ArtifactError

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80

ADVICE = "Save the model again, or get an undamaged copy."


class Value:
    """One value, with checks that return it as the requested type.

    Args:
        value: the parsed JSON value.
        field: path of the field, with dots and brackets; empty for the whole file.
        file: path of the file.

    A failed check raises `ArtifactError` with file, field and value.
    """

    def __init__(self, value: Any, field: str, file: Path):
        self.value, self.field, self.file = value, field, file

    def refuse(self, expected: str) -> NoReturn:
        """Raises an error that says what is expected."""
        where = f"{self.field}={_shortened.repr(self.value)}" if self.field else _shortened.repr(self.value)
        raise ArtifactError(f"{self.file}: {where}: {expected}. {ADVICE}")

    def integer(self, minimum: int, maximum: int) -> int:
        """Returns an integer within limits, both included."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not minimum <= self.value <= maximum:
            self.refuse(f"a whole number from {minimum} to {maximum} is needed")
        return self.value

    def number(self, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """Returns a finite number within limits, both included."""
        if not self._is_finite() or not minimum <= self.value <= maximum:
            above = "" if math.isinf(minimum) else f" of at least {minimum:g}"
            self.refuse(f"a finite number{above}{_at_most(maximum, bool(above))} is needed")
        return float(self.value)

    def greater_than(self, minimum: float, maximum: float = math.inf) -> float:
        """Returns a finite number greater than `minimum`, and at most `maximum`."""
        if not self._is_finite() or not minimum < self.value <= maximum:
            self.refuse(f"a finite number above {minimum:g}{_at_most(maximum, True)} is needed")
        return float(self.value)

    def _is_finite(self) -> bool:
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        return is_number and -1.7e308 <= self.value <= 1.7e308

    def boolean(self) -> bool:
        """Returns a boolean."""
        if not isinstance(self.value, bool):
            self.refuse("true or false is needed")
        return self.value

    def string(self) -> str:
        """Returns a string."""
        if not isinstance(self.value, str):
            self.refuse("a string is needed")
        return self.value

    def one_of(self, names: Collection[str]) -> str:
        """Returns one of the given strings."""
        if not isinstance(self.value, str) or self.value not in names:
            self.refuse(f"one of {', '.join(names)} is needed")
        return self.value

    def mapping(self) -> dict[str, Any]:
        """Returns an object as a dictionary."""
        if not isinstance(self.value, Mapping):
            self.refuse("an object is needed")
        return dict(self.value)

    def items(self, count: int | None = None) -> list[Value]:
        """Returns the elements of a list, optionally of a given length."""
        if not isinstance(self.value, (list, tuple)) or (count is not None and len(self.value) != count):
            self.refuse("a list is needed" if count is None else f"a list of {count} is needed")
        return [Value(part, f"{self.field}[{place}]", self.file) for place, part in enumerate(self.value)]

    def __getitem__(self, name: str) -> Value:
        """Returns a required field of an object."""
        contents = self.mapping()
        if name not in contents:
            where = f"{self.field} " if self.field else ""
            raise ArtifactError(f"{self.file}: {where}has no {name!r}. {ADVICE}")
        return self._part(name, contents[name])

    def get(self, name: str) -> Value | None:
        """Returns a field of an object; `None` if it is absent."""
        contents = self.mapping()
        return self._part(name, contents[name]) if name in contents else None

    def non_null(self, name: str) -> Value | None:
        """Returns a field of an object; `None` if it is absent or null."""
        part = self.get(name)
        return None if part is None or part.value is None else part

    def fields(self) -> Iterator[tuple[str, Value]]:
        """Yields all fields of an object."""
        for name, value in self.mapping().items():
            yield name, self._part(name, value)

    def _part(self, name: str, value: Any) -> Value:
        return Value(value, f"{self.field}.{name}" if self.field else name, self.file)


def _at_most(maximum: float, is_second: bool) -> str:
    if math.isinf(maximum):
        return ""
    return f"{' and' if is_second else ' of'} at most {maximum:g}"
