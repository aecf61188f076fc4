"""Compares the exits of a trained model with predicting the most frequent label. Imports no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ExitDiagnostics:
    """Accuracies of all exits in one evaluation, beside the share of the most frequent label.

    Args:
        rows: number of labelled rows.
        labels: number of different labels among them.
        majority: share of the most frequent label.
        accuracies: exit → accuracy, shallow to deep.
        early_share: share of rows that leave before the last exit; `None` for a model with one exit.
        thresholds: a description of the thresholds that `early_share` was computed with.
    """

    rows: int
    labels: int
    majority: float
    accuracies: Mapping[int, float]
    early_share: float | None
    thresholds: str

    @classmethod
    def of(
        cls, labels: Sequence[int], accuracies: Mapping[int, float], early_share: float | None, thresholds: str
    ) -> ExitDiagnostics:
        """Creates it from the labels of the rows."""
        counts = Counter(labels)
        majority = max(counts.values(), default=0) / max(len(labels), 1)
        return cls(len(labels), len(counts), majority, dict(accuracies), early_share, thresholds)

    def warnings(self) -> list[str]:
        """Returns one sentence for each finding that makes the model, or some of its exits, useless.

        An exit differs from the majority class if its accuracy differs by more than two standard errors of a
        proportion, sqrt(p (1 - p) / rows).
        """
        if self.rows == 0:
            return []
        if self.labels == 1:
            return [
                f"all {self.rows} evaluated rows have the same label, so their accuracy says nothing about the model."
            ]
        sentences = []
        *earlier, last = self.accuracies
        if (finding := self._compare(last)) is not None:
            sentences.append(f"the model, at its last exit ({last} layers), is {finding}: {self._figures([last])}.")
        findings = {exit_: self._compare(exit_) for exit_ in earlier}
        for finding in dict.fromkeys(filter(None, findings.values())):
            exits = [exit_ for exit_ in earlier if findings[exit_] == finding]
            subject = f"exit {exits[0]} is" if len(exits) == 1 else f"exits {', '.join(map(str, exits))} are"
            sentences.append(
                f"{subject} {finding}: {self._figures(exits)}. Rows that leave there get no better answer than the "
                "most frequent label."
            )
        if self.early_share == 0.0 and earlier:
            sentences.append(
                f"no row leaves early: the confidence of every row is below {self.thresholds} at every exit, so no "
                "time is saved. Choose thresholds with `itrex-sweet calibrate`, or train longer."
            )
        return sentences

    def _compare(self, exit_: int) -> str | None:
        """Describes an exit that is not better than the majority class; `None` for a better one."""
        accuracy, chance = self.accuracies[exit_], 1.0 / self.labels
        difference = accuracy - self.majority
        if difference > self._margin(self.majority):
            return None
        if difference >= -self._margin(self.majority):
            balanced = abs(self.majority - chance) <= self._margin(chance)
            return f"{'at chance, ' if balanced else ''}within two standard errors of the majority class"
        at_chance = abs(accuracy - chance) <= self._margin(chance)
        return f"{'at chance, ' if at_chance else ''}below the majority class"

    def _figures(self, exits: Sequence[int]) -> str:
        accuracies = ", ".join(f"{100 * self.accuracies[exit_]:.1f}" for exit_ in exits)
        return (
            f"{accuracies} % of {self.rows} rows correct, and always predicting the most frequent label has "
            f"{100 * self.majority:.1f} %"
        )

    def _margin(self, share: float) -> float:
        """Returns two standard errors of a share of the rows."""
        return 2.0 * math.sqrt(share * (1.0 - share) / self.rows)
