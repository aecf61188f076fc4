"""One row of a source, as every reader gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One row of a source, or what is wrong with it.

    Args:
        place: file and line number, or a data set's row, for messages.
        record: the row's values by column; empty if it could not be read.
        problem: why it could not, if so.
    """

    place: str
    record: Mapping[str, Any]
    problem: str | None = None
