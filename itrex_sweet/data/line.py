"""A row of a source, as the readers of all formats return it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """A row of a source, or the reason why it cannot be read.

    Args:
        place: file and line number, or the row of a data set, for messages.
        record: the row's values by column; empty if it could not be read.
        problem: the reason why it could not be read.
    """

    place: str
    record: Mapping[str, Any]
    problem: str | None = None
