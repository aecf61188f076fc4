"""Candidates for a policy: thresholds per exit that trade what rows cost for what they lose, from careful to bold."""

from __future__ import annotations

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.curve import thresholds_between

_CANDIDATES = 24  # thresholds tried at an exit, at quantiles of its confidences
_PRICES = np.geomspace(300.0, 0.3, 36)  # of a unit of mean loss, in shares of the full depth's cost
_SWEEPS = 4


def candidate_policies(
    policy: Policy, confidences: np.ndarray, losses: np.ndarray, costs: RowCosts, per_exit: bool = True
) -> list[Policy]:
    """Policies that are the cheapest for what a loss is said to cost, by falling price of a loss.

    For each price, thresholds are improved one exit after the other, the others held, until none changes
    (coordinate descent from the next more careful policy's thresholds). An exit's threshold of 1 switches it off, and
    saves its probe: exits that do not pay for theirs end so. What is priced is the mean loss and two of its standard
    errors: on so few rows, thresholds are easily found whose wins happen to make up for their losses, and which no
    other rows confirm.

    Args:
        policy: whose criterion and temperatures are kept.
        confidences: (rows, exits) by that criterion.
        losses: (rows, exits) what a row loses by leaving at each exit, against the last one.
        costs: of the rows, in any unit.
        per_exit: each exit its own threshold; else one for all.

    Returns:
        the full model first; then without repetitions, each cheaper on these rows than the one before.
    """
    full = float(costs.through[:, -1].mean())
    columns = list(confidences.T[:-1]) if per_exit else [confidences[:, :-1]]
    candidates = [thresholds_between(column, _CANDIDATES) for column in columns]
    rows = np.arange(len(confidences))

    def outcome(thresholds: tuple[float, ...]) -> tuple[float, float]:
        tried = policy.with_threshold(thresholds)
        leaving = criteria.leaving_exit(tried, confidences)
        lost = losses[rows, leaving]
        cost = float(costs.under(tried, leaving).mean()) / full
        return cost, float(lost.mean() + 2 * np.sqrt((lost**2).mean() / len(lost)))

    thresholds = (1.0,) * len(policy.thresholds)
    found = [(outcome(thresholds)[0], thresholds)]
    for price in _PRICES:
        best = _total(outcome(thresholds), price)
        for _ in range(_SWEEPS):
            before = thresholds
            for place, values in enumerate(candidates):
                for value in values:
                    tried = (value,) * len(thresholds) if not per_exit else _replaced(thresholds, place, value)
                    total = _total(outcome(tried), price)
                    if total < best - 1e-12:
                        best, thresholds = total, tried
            if thresholds == before:
                break
        cost = outcome(thresholds)[0]
        if cost < found[-1][0] - 1e-9:
            found.append((cost, thresholds))
    return [policy.with_threshold(thresholds) for _, thresholds in found]


def _total(outcome: tuple[float, float], price: float) -> float:
    cost, loss = outcome
    return cost + price * max(loss, 0.0)


def _replaced(values: tuple[float, ...], place: int, value: float) -> tuple[float, ...]:
    return (*values[:place], value, *values[place + 1 :])
