"""Compares the exits of a trained model with always giving one answer, in words. No torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """The result of one evaluation.

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
            said.append(f"the model, at its last exit ({last} layers), is {place}: {self._figures([last])}.")
        places = {exit_: self._place(exit_) for exit_ in earlier}
        for place in dict.fromkeys(filter(None, places.values())):
            exits = [exit_ for exit_ in earlier if places[exit_] == place]
            named = f"exit {exits[0]} is" if len(exits) == 1 else f"exits {', '.join(map(str, exits))} are"
            said.append(
                f"{named} {place}: {self._figures(exits)}. Rows that leave there are answered no better than without "
                "reading them."
            )
        if self.leaving == 0.0 and earlier:
            said.append(
                f"nobody leaves early: no row is sure enough at any exit for {self.thresholds}, so nothing is saved. "
                "Choose thresholds with `itrex-sweet calibrate`, or train longer."
            )
        return said

    def _place(self, exit_: int) -> str | None:
        """Compares an exit with the majority class, in words; `None` if it is better."""
        accuracy, chance = self.accuracies[exit_], 1.0 / self.labels
        above = accuracy - self.majority
        if above > self._margin(self.majority):
            return None
        if above >= -self._margin(self.majority):
            even = abs(self.majority - chance) <= self._margin(chance)
            return f"{'at chance, ' if even else ''}within two standard errors of the majority class"
        at_chance = abs(accuracy - chance) <= self._margin(chance)
        return f"{'at chance, ' if at_chance else ''}below the majority class"

    def _figures(self, exits: Sequence[int]) -> str:
        shares = ", ".join(f"{100 * self.accuracies[exit_]:.1f}" for exit_ in exits)
        return (
            f"{shares} % of {self.rows} rows right, and always giving the most frequent label has "
            f"{100 * self.majority:.1f} %"
        )

    def _margin(self, share: float) -> float:
        """Two standard errors of a share of the rows."""
        return 2.0 * math.sqrt(share * (1.0 - share) / self.rows)
