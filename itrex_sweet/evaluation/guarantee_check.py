"""Tests the drop that a calibrated policy promises, on rows that had no part in making it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.artifact.fingerprints import CALIBRATION, QUANTIZATION, SELECTION, TRAINING
from itrex_sweet.evaluation.metrics import METRICS, Metric, accuracy
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.reference import ANSWERS, Reference
from itrex_sweet.evaluation.seen_rows import SPOILING, SeenRows

_MOST_UNKNOWN = 0.01  # share of the rows that may have been seen without being known one by one
_OF_ROLE = {
    TRAINING: "trained on",
    SELECTION: "chosen by",
    QUANTIZATION: "quantized with",
    CALIBRATION: "calibrated on",
}


@dataclass(frozen=True)
class GuaranteeCheck:
    """The promise of a policy, and the evidence of other rows.

    Args:
        what: may be lost, in words.
        most: that may be lost, a share.
        confidence: with which that was promised.
        against: name of the model that it was promised against; `None` for the same model at full depth.
        rows: evaluated.
        judged: of these, rows that had no part in making the model or the policy; the others are left out.
        seen: role → share of the rows that the model has seen in it, where it is not 0.
        lost: on the rows judged, a share; `None` where nothing can be said.
        reason: why nothing can be said.
    """

    what: str
    most: float
    confidence: float
    against: str | None
    rows: int
    judged: int
    seen: Mapping[str, float]
    lost: float | None
    reason: str | None = None

    @property
    def kept(self) -> bool | None:
        """True if no more was lost; `None` where these rows are no evidence."""
        return None if self.lost is None else self.lost <= self.most

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "seen": dict(self.seen), "kept": self.kept}

    def sentence(self) -> str:
        """The same in words."""
        against = f" against {self.against}" if self.against and self.against not in self.what else ""
        promised = (
            f"promised to lose at most {100 * self.most:g} {self.what}{against} with {100 * self.confidence:g} % "
            "confidence"
        )
        if self.lost is None:
            return f"{promised}; no evidence here for or against that: {self.reason}."
        rows = f"these {self.rows} rows"
        if self.judged < self.rows:
            rows = f"the {self.judged} of {rows} that the model has not seen ({_listed(self.seen)})"
        verdict = "held" if self.kept else "not held on these rows"
        return f"{promised}; lost {100 * self.lost:.2f} on {rows}: {verdict}."


def check_guarantee(
    artifact: Artifact,
    outcomes: ExitOutcomes,
    seen: SeenRows,
    metric_name: str,
    reference: Reference | None = None,
    reference_answers: np.ndarray | None = None,
) -> GuaranteeCheck | None:
    """Judges the promise of an artifact's policy on the rows that the model has not seen.

    Args:
        outcomes: of all rows.
        seen: which of them the model has seen.
        metric_name: what is evaluated; a promise of another metric is not judged.
        reference: the model that was compared with, if one was.
        reference_answers: (rows,) int64 of it.

    Returns:
        `None` where nothing was promised, or of another metric.
    """
    budget = artifact.calibration.get("budget") or {}
    against = (artifact.calibration.get("against") or {}).get("name")
    promised = _promised(budget, metric_name, against)
    if promised is None or "confidence" not in budget:
        return None
    most, what, metric = promised
    unseen = np.flatnonzero(~seen.any_of(SPOILING))
    shares = {role: share for role, share in seen.shares.items() if role in SPOILING}
    reason = lost = None
    if not len(unseen) or seen.unknown_share(SPOILING) > _MOST_UNKNOWN:
        reason = _listed(shares)
    elif against is not None and reference_answers is None:
        reason = f"how {against} answers these rows is not known (--against)"
    elif against is not None and (other := _other_model(artifact.calibration["against"], reference)):
        reason = other
    else:
        judged = outcomes.select(unseen)
        full = judged.predictions()[:, -1] if against is None else reference_answers[unseen]
        answers = judged.answers(artifact.policy)
        lost = (
            float((answers != full).mean())
            if metric is None
            else float(metric(full, judged.labels) - metric(answers, judged.labels))
        )
    return GuaranteeCheck(
        what=what,
        most=most,
        confidence=budget["confidence"],
        against=against,
        rows=len(outcomes),
        judged=len(unseen) if lost is not None else 0,
        seen=shares,
        lost=lost,
        reason=reason,
    )


def _promised(
    budget: Mapping[str, Any], metric_name: str, against: str | None
) -> tuple[float, str, Metric | None] | None:
    """The drop, what is lost in words, and the metric; no metric for agreement."""
    if "max_accuracy_drop" in budget and metric_name == "accuracy":
        return budget["max_accuracy_drop"], "points of accuracy", accuracy
    if "max_agreement_drop" in budget:
        return budget["max_agreement_drop"], f"% of agreement with {against or 'full depth'}", None
    if "max_metric_drop" in budget and metric_name == budget.get("metric") and metric_name in METRICS:
        return budget["max_metric_drop"], f"points of {metric_name}", METRICS[metric_name]
    return None


def _other_model(recorded: Mapping[str, Any], reference: Reference | None) -> str | None:
    """Why a reference is not the model that was promised against."""
    if reference is None or ANSWERS in (recorded.get("kind"), reference.kind):
        return None  # answers to other rows are another file
    if reference.sha256 == recorded.get("sha256"):
        return None
    return f"{reference.name} has other weights than the {recorded.get('name')} that the promise is against"


def _listed(shares: Mapping[str, float]) -> str:
    """`100 % of the rows were calibrated on`."""
    said = [f"{100 * share:.3g} % of the rows were {_OF_ROLE[role]}" for role, share in shares.items()]
    return ", ".join(said)
