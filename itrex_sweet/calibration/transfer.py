"""Carrying a policy over to a model whose confidences have moved: the same share of rows leaves at each exit."""

from __future__ import annotations

import dataclasses

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.outcomes import ExitOutcomes


def transfer_thresholds(
    policy: Policy, before: ExitOutcomes, after: ExitOutcomes, temperatures: tuple[float, ...] | None = None
) -> Policy:
    """Thresholds under which as many rows leave at each exit of the new model as left at the old one's.

    Needs no labels. A threshold of 1, which nothing meets, and one of 0 stay what they are.

    Args:
        policy: of the old model.
        before: what the old model said, no row leaving early.
        after: what the new one said of the same rows.
        temperatures: of the new model, one per exit; the policy's if absent.
    """
    new = dataclasses.replace(policy, temperatures=temperatures or policy.temperatures)
    sure_before = before.confidences(policy)
    sure_after = after.confidences(new)
    here_before = here_after = np.ones(len(before), dtype=bool)
    thresholds = []
    for place, threshold in enumerate(policy.thresholds):
        leaving = here_before & criteria.may_leave(policy, place, sure_before[:, place])
        confidence = sure_after[:, place]
        if 0.0 < threshold < 1.0:
            threshold = _letting_go(np.nan_to_num(confidence[here_after], nan=0.0), int(leaving.sum()))
        thresholds.append(threshold)
        new = new.with_threshold((*thresholds, *policy.thresholds[place + 1 :]))
        here_before = here_before & ~leaving
        here_after = here_after & ~criteria.may_leave(new, place, confidence)
    return new


def _letting_go(confidence: np.ndarray, count: int) -> float:
    """The threshold that `count` of the rows are above: halfway between the last to leave and the first to stay."""
    ranked = np.concatenate([[1.0], np.sort(confidence)[::-1], [0.0]]).astype(np.float64)
    count = min(count, len(confidence))
    return float((ranked[count] + ranked[count + 1]) / 2.0)
