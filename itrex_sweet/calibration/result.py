"""What a calibration found: candidates with what the testing rows say of them, and the one that was chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.artifact import Artifact, copy_artifact, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.bounds import LossCounts
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.costs import CostTable
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.model_card import card_after_calibration


@dataclass(frozen=True)
class Candidate:
    """A policy, and what the testing rows say of it.

    Args:
        policy: with the new temperatures.
        mean_layers: run per testing row.
        milliseconds: per testing row, by the cost table; `None` where costs are counted in layers.
        counts: rows that it lost and won against the full model.
        score: of its answers: accuracy, the budget's metric, or without labels agreement with the full model, a share.
        p_value: of the hypothesis that it loses more than the budget; `None` where nothing is promised.
    """

    policy: Policy
    mean_layers: float
    milliseconds: float | None
    counts: LossCounts
    score: float
    p_value: float | None

    @property
    def cost(self) -> float:
        """Milliseconds per row, or layers."""
        return self.mean_layers if self.milliseconds is None else self.milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
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
    """A policy for a budget, and all that it rests on.

    Args:
        policy: the one chosen.
        budget: that it keeps to.
        bound: how the promise was tested; `None` where nothing is promised.
        candidates: from careful to bold, the full model first.
        chosen: place of the policy among them.
        certified: how many of them, from the first, are certified; `None` where nothing is promised.
        rows_for_the_next: testing rows that would probably certify the next bolder one; `None` if none would.
        rows: rows that chose, and rows that tested.
        temperatures: before and after, and the calibration errors and Brier scores under both, per exit.
        fingerprints: of the rows.
        traffic: how the testing rows' answers are spread, to tell later traffic from (`calibration.drift`).
        costs: the table of milliseconds; `None` where costs are counted in layers.
        facts: where the model ran, and what was read.
        against: name, kind, weights' hash and score of the model that the promise is against; `None` for the same model
            at full depth.
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

    @property
    def switched_off(self) -> tuple[int, ...]:
        """Exits, counts of layers, that answer nobody: they do not pay for their probes, or lose too much."""
        pairs = zip(self.facts["exits"], self.policy.thresholds, strict=False)
        return tuple(exit_ for exit_, threshold in pairs if threshold >= 1.0)

    def to_dict(self) -> dict[str, Any]:
        """What an artifact records, in plain JSON types; the cost table has a place of its own."""
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
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "temperatures": self.temperatures,
            "traffic": dict(self.traffic),
        }

    def write(self, artifact: Artifact, directory: str | Path | None = None) -> Artifact:
        """Writes the artifact with this policy, in place if no folder is named, and says so in its model card.

        Raises:
            ArtifactError: the folder cannot be written; what it held before is untouched.
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
