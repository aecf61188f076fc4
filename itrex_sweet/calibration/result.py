"""The result of a calibration: the tested candidates, the selected policy, and their record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact, copy_artifact, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.costs import CostTable
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.evaluation.label_agreement import LabelAgreement, lost_labels
from itrex_sweet.evaluation.model_card import card_after_calibration
from itrex_sweet.policy import Policy


@dataclass(frozen=True)
class Candidate:
    """A policy with its measurements on the testing rows.

    Args:
        policy: with the new temperatures.
        mean_layers: layers run per row.
        milliseconds: per row, by the cost table; `None` if costs are counted in layers.
        counts: rows that it loses and wins against the compared model.
        score: accuracy, the budget's metric, or without labels agreement with the compared model, a fraction.
        p_value: of the null hypothesis that it loses more than the budget; `None` without a guarantee.
    """

    policy: Policy
    mean_layers: float
    milliseconds: float | None
    counts: LossCounts
    score: float
    p_value: float | None

    @property
    def cost(self) -> float:
        """Milliseconds per row, or layers if they were not measured."""
        return self.mean_layers if self.milliseconds is None else self.milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "thresholds": list(self.policy.thresholds),
            "mean_layers": round(self.mean_layers, 4),
            "milliseconds": None if self.milliseconds is None else round(self.milliseconds, 5),
            **dataclasses.asdict(self.counts),
            "score": round(self.score, 6),
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class Calibration:
    """The selected policy for a budget, with all candidates and measurements.

    Args:
        policy: the selected one.
        budget: that it meets.
        bound: name of the hypothesis test; `None` without a guarantee.
        candidates: from conservative to aggressive, the full model first.
        chosen: index of the selected candidate.
        certified: number of certified candidates, from the first; `None` without a guarantee.
        rows_for_the_next: testing rows that would probably certify the next candidate; `None` if no number would.
        rows: number of tuning rows and of testing rows.
        temperatures: before and after, with calibration errors and Brier scores under both, per exit.
        fingerprints: of all rows.
        traffic: distribution of the testing rows' answers, the reference for `calibration.drift`.
        costs: the table of milliseconds; `None` if costs are counted in layers.
        facts: backend, precision, data and settings.
        against: name, kind, weights' hash and score of the model that the policy is compared with; `None` for the same
            model at full depth.
        fixed_exits: the policies under which every row leaves at the same exit, one per exit before the last, on the
            testing rows; empty for criteria that need the outputs of every exit.
        labels: per label of the compared model, agreement of the policy with it on the testing rows; empty for a
            regression.
    """

    policy: Policy
    budget: Budget
    bound: str | None
    candidates: tuple[Candidate, ...]
    chosen: int
    certified: int | None
    rows_for_the_next: int | None
    rows: tuple[int, int]
    temperatures: dict[str, list[float]]
    fingerprints: Fingerprints
    traffic: Mapping[str, Any]
    costs: CostTable | None
    facts: dict[str, Any]
    against: Mapping[str, Any] | None = None
    fixed_exits: tuple[Candidate, ...] = ()
    labels: tuple[LabelAgreement, ...] = ()

    @property
    def switched_off(self) -> tuple[int, ...]:
        """Exits, counts of layers, at which no row leaves: they cost more than they save, or lose too much."""
        pairs = zip(self.facts["exits"], self.policy.thresholds, strict=False)
        return tuple(exit_ for exit_, threshold in pairs if threshold >= 1.0)

    @property
    def lost_labels(self) -> tuple[LabelAgreement, ...]:
        """Labels whose rows get another label far more often than other rows."""
        return lost_labels(self.labels)

    @property
    def static_alternative(self) -> tuple[int, Candidate] | None:
        """Returns the best exit, a count of layers, that is as good as the selected policy and costs no more if every
        row leaves there, with its measurements; `None` if there is none.

        A model of that depth, without early exit, would do as well. The comparison is of the testing rows' means: no
        guarantee covers it.
        """
        selected = self.candidates[self.chosen]
        as_good = [
            (exit_, each)
            for exit_, each in zip(self.facts["exits"], self.fixed_exits, strict=False)
            if each.score >= selected.score and each.cost <= selected.cost
        ]
        return max(as_good, key=lambda pair: (pair[1].score, -pair[1].cost), default=None)

    def representative_candidates(self, count: int = 16) -> list[int]:
        """Returns indices of candidates for a short table.

        The full model, the selected candidate, the last certified one and the next are included; the others are about
        evenly spaced in cost.
        """
        last = len(self.candidates) - 1
        shown = {0, self.chosen, last}
        if self.certified is not None:
            shown |= {self.certified - 1, min(self.certified, last)}
        costs = np.array([each.cost for each in self.candidates])
        shown |= {int(np.abs(costs - cost).argmin()) for cost in np.linspace(costs.min(), costs.max(), count)}
        return sorted(shown)

    def to_dict(self) -> dict[str, Any]:
        """Returns the artifact's record in plain JSON types; the cost table is recorded separately."""
        return {
            **self.facts,
            "budget": self.budget.to_dict(),
            "bound": self.bound,
            **({} if self.against is None else {"against": dict(self.against)}),
            "rows_choosing": self.rows[0],
            "rows_testing": self.rows[1],
            "certified": self.certified,
            "rows_for_the_next": self.rows_for_the_next,
            "chosen": self.candidates[self.chosen].to_dict(),
            "switched_off": list(self.switched_off),
            "static_alternative": self._static_record(),
            "labels": [each.to_dict() for each in self.labels],
            "lost_labels": [each.label for each in self.lost_labels],
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "temperatures": self.temperatures,
            "traffic": dict(self.traffic),
        }

    def _static_record(self) -> dict[str, Any] | None:
        if (static := self.static_alternative) is None:
            return None
        exit_, candidate = static
        record = candidate.to_dict()
        return {"exit": exit_, **{name: record[name] for name in ("mean_layers", "milliseconds", "score")}}

    def write(self, artifact: Artifact, directory: str | Path | None = None) -> Artifact:
        """Writes the artifact with this policy and updates its model card, in place if no folder is given.

        Raises:
            ArtifactError: the folder cannot be written; its previous content is unchanged.
        """
        written = copy_artifact(
            artifact,
            artifact.directory if directory is None else directory,
            self.policy,
            calibration=self.to_dict(),
            calibrated_on=self.fingerprints,
            costs=None if self.costs is None else self.costs.to_dict(),
        )
        write_card(written, card_after_calibration(written))
        return written
