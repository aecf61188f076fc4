"""Whether a trained model is worth anything: its exits against always giving one answer, in words. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_STANDARD_ERRORS = 2.0  # an accuracy within so many of another is not told from it


@dataclass(frozen=True)
class Standing:
    """What one evaluation found.

    Args:
        rows: labelled ones.
        labels: that occur among them.
        majority: share of the most frequent label.
        accuracies: exit → share of rows that it answers right, shallow to deep.
        leaving: share of rows that leave before the last exit; `None` for a model with one exit.
        thresholds: the thresholds that they leave by, in words.
    """

    rows: int
    labels: int
    majority: float
    accuracies: Mapping[int, float]
    leaving: float | None
    thresholds: str

    @classmethod
    def of(
        cls, labels: Sequence[int], accuracies: Mapping[int, float], leaving: float | None, thresholds: str
    ) -> Standing:
        """The same from the labels of the rows."""
        counts = Counter(labels)
        majority = max(counts.values(), default=0) / max(len(labels), 1)
        return cls(len(labels), len(counts), majority, dict(accuracies), leaving, thresholds)

    def complaints(self) -> list[str]:
        """One sentence for everything that makes the model, or some of its exits, useless; none for a good one.

        An exit is told from the majority class where its accuracy differs by more than two standard errors of a share,
        sqrt(p (1 - p) / rows).
        """
        if self.rows == 0:
            return []
        if self.labels == 1:
            return [
                f"all {self.rows} evaluated rows have the same label, so their accuracy says nothing about the model."
            ]
        said = []
        *earlier, last = self.accuracies
        if (place := self._place(last)) is not None:
            said.append(f"the model, at its last exit ({last} layers), is {place}.")
        by_place: dict[str, list[int]] = {}
        for exit_ in earlier:
            if (place := self._place(exit_, shown=False)) is not None:
                by_place.setdefault(place, []).append(exit_)
        for place, exits in by_place.items():
            one = len(exits) == 1
            figures = _listed(f"{100 * self.accuracies[exit_]:.1f}" for exit_ in exits)
            said.append(
                f"exit{'' if one else 's'} {_listed(map(str, exits))} {'is' if one else 'are'} {place} ({figures} % of "
                f"{self.rows} rows right, the majority class {100 * self.majority:.1f} %): rows that leave there are "
                "answered no better than without reading them."
            )
        if self.leaving == 0.0 and earlier:
            said.append(
                f"nobody leaves early: no row is sure enough at any exit for {self.thresholds}, so nothing is saved. "
                "Choose thresholds with `itrex-sweet calibrate`, or train longer."
            )
        return said

    def _place(self, exit_: int, shown: bool = True) -> str | None:
        """Where an exit stands, in words; `None` if it is better than the majority class."""
        accuracy, chance = self.accuracies[exit_], 1.0 / self.labels
        if accuracy > self.majority + _STANDARD_ERRORS * self._error(self.majority):
            return None
        if abs(accuracy - self.majority) <= _STANDARD_ERRORS * self._error(self.majority):
            at_chance = abs(self.majority - chance) <= _STANDARD_ERRORS * self._error(chance)
            place = "at chance, no better than the majority class" if at_chance else "no better than the majority class"
        elif abs(accuracy - chance) <= _STANDARD_ERRORS * self._error(chance):
            place = "at chance, below the majority class"
        else:
            place = "below the majority class"
        if not shown:
            return place
        return (
            f"{place}: {100 * accuracy:.1f} % of {self.rows} rows right, and always giving the most frequent label has "
            f"{100 * self.majority:.1f} % (standard error {100 * self._error(self.majority):.1f})"
        )

    def _error(self, share: float) -> float:
        return math.sqrt(share * (1.0 - share) / self.rows)


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)
