"""Finds exits of a trained model that are no better than a constant prediction. Imports no torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itrex_sweet.association import MIN_ASSOCIATION, has_learned
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, Task

_CONSTANT = "not measurably better than a constant prediction"


@dataclass(frozen=True)
class ExitDiagnostics:
    """Accuracies of all exits in one evaluation, beside the share of the most frequent label.

    Args:
        rows: number of labelled rows.
        labels: number of different labels, sets of labels or values among them.
        majority: share of the most frequent label or set; `None` for a regression.
        accuracies: exit → accuracy, shallow to deep; not read for a regression.
        associations: exit → how strongly its outputs depend on the labels, see `itrex_sweet.association`.
        early_share: share of rows that leave before the last exit; `None` for a model with one exit, or if unknown.
        thresholds: a description of the thresholds that `early_share` was computed with.
    """

    rows: int
    labels: int
    majority: float | None
    accuracies: Mapping[int, float]
    associations: Mapping[int, float]
    early_share: float | None
    thresholds: str

    @classmethod
    def of(
        cls,
        task: Task,
        labels: Sequence[Any],
        accuracies: Mapping[int, float],
        associations: Mapping[int, float],
        early_share: float | None,
        thresholds: str,
    ) -> ExitDiagnostics:
        """Creates it from the labels of the rows, or vectors of labels, or values."""
        counts = Counter(map(tuple, labels) if task.name == MULTI_LABEL else labels)
        majority = None if task.name == REGRESSION else max(counts.values(), default=0) / max(len(labels), 1)
        return cls(len(labels), len(counts), majority, dict(accuracies), dict(associations), early_share, thresholds)

    def warnings(self) -> list[str]:
        """Returns one sentence for each finding that makes the model, or some of its exits, useless.

        An exit is no better than a constant prediction if its outputs do not depend on the labels
        (`association.has_learned`) and its accuracy is not above the share of the most frequent label by more than two
        standard errors, sqrt(p (1 - p) / rows).
        Accuracy alone is not enough: if most rows have the same label, a useful exit may get no more rows right.
        """
        if self.rows == 0:
            return []
        if self.labels == 1:
            return [
                f"all {self.rows} evaluated rows have the same label, so their accuracy says nothing about the model."
            ]
        sentences = []
        *earlier, last = self.associations
        if not self._is_accurate(last):
            subject = f"the model, at its last exit ({last} layers),"
            learned = self._learned(last)
            if learned is False:
                sentences.append(f"{subject} is {_CONSTANT}: {self._figures([last])}.")
            elif learned and self.majority is not None:
                sentences.append(
                    f"{subject} gets no more rows right than always predicting the most frequent label, although its "
                    f"outputs depend on the labels: {self._figures([last])}. Compare another metric, such as f1 or "
                    "matthews."
                )
        exits = [exit_ for exit_ in earlier if self._learned(exit_) is False and not self._is_accurate(exit_)]
        if exits:
            subject = f"exit {exits[0]} is" if len(exits) == 1 else f"exits {', '.join(map(str, exits))} are"
            sentences.append(
                f"{subject} {_CONSTANT}: {self._figures(exits)}. Rows that leave there get no better answer than a "
                "constant one. Train longer, or leave the exit out."
            )
        if self.early_share == 0.0 and earlier:
            sentences.append(
                f"no row leaves early: the confidence of every row is below {self.thresholds} at every exit, so no "
                "time is saved. Choose thresholds with `itrex-sweet calibrate`, or train longer."
            )
        return sentences

    def _learned(self, exit_: int) -> bool | None:
        others = self.rows if self.majority is None else self.rows - round(self.majority * self.rows)
        return has_learned(self.associations[exit_], others)

    def _is_accurate(self, exit_: int) -> bool:
        if self.majority is None:
            return False
        margin = 2.0 * math.sqrt(self.majority * (1.0 - self.majority) / self.rows)
        return self.accuracies[exit_] - self.majority > margin

    def _figures(self, exits: Sequence[int]) -> str:
        values = ", ".join(f"{self.associations[exit_]:.1f}" for exit_ in exits)
        association = f"association of outputs and labels {values}, which chance explains up to {MIN_ASSOCIATION:g}"
        if self.majority is None:
            return f"{association}, on {self.rows} rows"
        accuracies = ", ".join(f"{100 * self.accuracies[exit_]:.1f}" for exit_ in exits)
        return (
            f"{accuracies} % of {self.rows} rows correct, and always predicting the most frequent label has "
            f"{100 * self.majority:.1f} %; {association}"
        )
