"""Transfers thresholds to a model with other confidences, such as a quantized one: exit rates stay the same."""

from __future__ import annotations

import dataclasses

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.policy import Policy


def transfer_thresholds(
    policy: Policy, before: ExitOutcomes, after: ExitOutcomes, temperatures: tuple[float, ...] | None = None
) -> Policy:
    """Returns thresholds under which as many rows leave at each exit of the new model as of the old one.

    Needs no labels. Thresholds of 0 and 1 are kept.

    Args:
        policy: of the old model.
        before: outcomes of the old model.
        after: outcomes of the new model for the same rows.
        temperatures: of the new model, one per exit; the policy's if absent.
    """
    new = dataclasses.replace(policy, temperatures=temperatures or policy.temperatures)
    confidences_before = before.confidences(policy)
    confidences_after = after.confidences(new)
    active_before = active_after = np.ones(len(before), dtype=bool)
    thresholds = []
    for index, threshold in enumerate(policy.thresholds):
        leaving = active_before & criteria.may_leave(policy, index, confidences_before[:, index])
        confidence = confidences_after[:, index]
        if 0.0 < threshold < 1.0:
            threshold = _threshold_for_count(np.nan_to_num(confidence[active_after], nan=0.0), int(leaving.sum()))
        thresholds.append(threshold)
        new = new.with_threshold((*thresholds, *policy.thresholds[index + 1 :]))
        active_before = active_before & ~leaving
        active_after = active_after & ~criteria.may_leave(new, index, confidence)
    return new


def _threshold_for_count(confidence: np.ndarray, count: int) -> float:
    """Returns the threshold that `count` of the rows exceed, halfway between two neighbouring confidences."""
    ranked = np.concatenate([[1.0], np.sort(confidence)[::-1], [0.0]]).astype(np.float64)
    count = min(count, len(confidence))
    return float((ranked[count] + ranked[count + 1]) / 2.0)
