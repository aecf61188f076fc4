"""Checks the guarantee of a calibrated policy on rows that were not used to train, select or calibrate the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.artifact.fingerprints import CALIBRATION, QUANTIZATION, SELECTION, TRAINING
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.reference import ANSWERS, Reference
from itrex_sweet.evaluation.seen_rows import NOT_HELD_OUT, SeenRows
from itrex_sweet.metrics import METRICS, Metric

_MAX_UNRECORDED_SHARE = 0.01  # of rows that were probably seen, but whose fingerprints were not recorded
_USE_OF_ROLE = {
    TRAINING: "training",
    SELECTION: "selection",
    QUANTIZATION: "quantization",
    CALIBRATION: "calibration",
}


@dataclass(frozen=True)
class GuaranteeCheck:
    """The guaranteed drop of a policy, and the drop on other rows.

    Args:
        target: quantity whose drop is limited, for messages.
        max_drop: guaranteed, a fraction.
        confidence: of the guarantee.
        against: name of the model that the policy is compared with; `None` for the same model at full depth.
        rows: number of rows evaluated.
        held_out_rows: number of these that were not used to make the model or the policy; only they are compared.
        seen: role → fraction of the rows that the model has seen in it, if not 0.
        drop: on the held-out rows, a fraction; `None` if it cannot be measured.
        reason: why it cannot be measured.
    """

    target: str
    max_drop: float
    confidence: float
    against: str | None
    rows: int
    held_out_rows: int
    seen: Mapping[str, float]
    drop: float | None
    reason: str | None = None

    @property
    def holds(self) -> bool | None:
        """True if the drop is within the guarantee; `None` if it cannot be measured."""
        return None if self.drop is None else self.drop <= self.max_drop

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "what": self.target,
            "most": self.max_drop,
            "confidence": self.confidence,
            "against": self.against,
            "rows": self.rows,
            "judged": self.held_out_rows,
            "seen": dict(self.seen),
            "lost": self.drop,
            "reason": self.reason,
            "kept": self.holds,
        }

    def sentence(self) -> str:
        """Returns a summary in one sentence."""
        against = f" against {self.against}" if self.against and self.against not in self.target else ""
        guaranteed = (
            f"certified to lose at most {100 * self.max_drop:g} {self.target}{against} with "
            f"{100 * self.confidence:g} % confidence"
        )
        if self.drop is None:
            return f"{guaranteed}; not checked on these rows: {self.reason}."
        rows = f"these {self.rows} rows"
        if self.held_out_rows < self.rows:
            rows = f"the {self.held_out_rows} held-out rows of {rows} ({_describe_seen(self.seen)})"
        verdict = "held" if self.holds else "not held on these rows"
        return f"{guaranteed}; lost {100 * self.drop:.2f} on {rows}: {verdict}."


def check_guarantee(
    artifact: Artifact,
    outcomes: ExitOutcomes,
    seen: SeenRows,
    metric_name: str,
    reference: Reference | None = None,
    reference_answers: np.ndarray | None = None,
) -> GuaranteeCheck | None:
    """Measures the drop of an artifact's policy on the rows that the model has not seen.

    Args:
        outcomes: of all rows.
        seen: rows that the model has seen.
        metric_name: evaluated metric; a guarantee of another metric is not checked.
        reference: model to compare with, if any.
        reference_answers: (rows,) int64, its predictions.

    Returns:
        `None` without a guarantee, or if it is of another metric.
    """
    budget = artifact.calibration.get("budget") or {}
    against = (artifact.calibration.get("against") or {}).get("name")
    guaranteed = _guaranteed_drop(budget, metric_name, against)
    if guaranteed is None or "confidence" not in budget:
        return None
    max_drop, target, metric = guaranteed
    unseen = np.flatnonzero(~seen.any_of(NOT_HELD_OUT))
    shares = {role: share for role, share in seen.shares.items() if role in NOT_HELD_OUT}
    reason = drop = None
    if not len(unseen) or seen.unknown_share(NOT_HELD_OUT) > _MAX_UNRECORDED_SHARE:
        reason = _describe_seen(shares)
    elif against is not None and reference_answers is None:
        reason = f"the predictions of {against} for these rows are needed (--against)"
    elif against is not None and (mismatch := _reference_mismatch(artifact.calibration["against"], reference)):
        reason = mismatch
    else:
        held_out = outcomes.select(unseen)
        policy = artifact.policy
        full = held_out.predictions(policy)[:, -1] if against is None else reference_answers[unseen]
        answers = held_out.answers(policy)
        if metric is not None:
            drop = float(metric(full, held_out.labels) - metric(answers, held_out.labels))
        else:
            drop = float(1.0 - held_out.task.agree(answers, full, policy.tolerance).mean())
    return GuaranteeCheck(
        target=target,
        max_drop=max_drop,
        confidence=budget["confidence"],
        against=against,
        rows=len(outcomes),
        held_out_rows=len(unseen) if drop is not None else 0,
        seen=shares,
        drop=drop,
        reason=reason,
    )


def _guaranteed_drop(
    budget: Mapping[str, Any], metric_name: str, against: str | None
) -> tuple[float, str, Metric | None] | None:
    """Returns the drop, its description, and the metric; no metric for agreement."""
    if "max_accuracy_drop" in budget and metric_name in ("accuracy", "exact_match"):
        return budget["max_accuracy_drop"], f"points of {metric_name.replace('_', ' ')}", METRICS[metric_name]
    if "max_agreement_drop" in budget:
        return budget["max_agreement_drop"], f"% of agreement with {against or 'full depth'}", None
    if "max_metric_drop" in budget and metric_name == budget.get("metric") and metric_name in METRICS:
        return budget["max_metric_drop"], f"points of {metric_name}", METRICS[metric_name]
    return None


def _reference_mismatch(recorded: Mapping[str, Any], reference: Reference | None) -> str | None:
    """Returns why a reference is not the recorded model; `None` if it is, or if answers were given as a file."""
    if reference is None or ANSWERS in (recorded.get("kind"), reference.kind):
        return None
    if reference.sha256 == recorded.get("sha256"):
        return None
    return f"{reference.name} has other weights than the {recorded.get('name')} that was compared with"


def _describe_seen(shares: Mapping[str, float]) -> str:
    parts = [f"{100 * share:.3g} % of the rows were used for {_USE_OF_ROLE[role]}" for role, share in shares.items()]
    return ", ".join(parts)
