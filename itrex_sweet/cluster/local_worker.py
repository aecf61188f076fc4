"""Answers parts in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from itrex_sweet.cluster.parts import Part, PartAnswerer, PartAnswers


class LocalWorker:
    """Answers one part after the other; the counterpart of `RayWorkers`.

    Args:
        answerer: arguments of `PartAnswerer`.
        echo: whether answers repeat texts.
    """

    def __init__(self, answerer: Mapping[str, Any], echo: bool):
        self._answerer = PartAnswerer(**answerer)
        self._echo = echo

    def answered(self, parts: Iterator[Part]) -> Iterator[tuple[Part, PartAnswers]]:
        """Yields each part with its answers."""
        for part in parts:
            yield part, self._answerer.answer(part.question(self._echo))

    def close(self) -> None:
        """Does nothing; `RayWorkers` ends its processes."""
