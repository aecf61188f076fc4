"""Searches candidate policies: thresholds per exit that trade cost for loss, from conservative to aggressive."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.evaluation.curve import thresholds_between
from itrex_sweet.policy import Policy

_THRESHOLDS_PER_EXIT = 24  # at quantiles of the exit's confidences
_LOSS_WEIGHTS = np.geomspace(300.0, 0.3, 36)  # cost of a unit of mean loss, as a multiple of full depth's cost
_MAX_SWEEPS = 4
_COST_STEP = 0.01  # between neighbouring candidates, as a fraction of full depth's cost


def candidate_policies(
    policy: Policy,
    confidences: np.ndarray,
    losses: np.ndarray,
    costs: RowCosts,
    per_exit: bool = True,
    epsilon: float | None = None,
) -> list[Policy]:
    """Returns candidate policies along the trade-off between cost and loss, densely spaced up to a budget.

    Thresholds are interpolated between neighbouring `optimal_policies`, so that the costs of neighbouring candidates
    differ by about a hundredth of full depth's. The last certified candidate is then close to the cheapest policy that
    could be certified.

    Args:
        policy: provides criterion and temperatures.
        confidences: (rows, exits) by that criterion.
        losses: (rows, exits) loss of each row when it leaves at each exit, against the compared model.
        costs: of the rows, in any unit.
        per_exit: one threshold per exit; otherwise one for all exits.
        epsilon: mean loss that the budget allows; no interpolation where policies lose more than twice as much.

    Returns:
        the full model first, then policies without duplicates, each cheaper on these rows than the one before.
    """
    rows = SimulatedRows(confidences, losses, costs)
    optima = optimal_policies(policy, rows, per_exit)
    candidates = optima[:1]
    for conservative, aggressive in itertools.pairwise(optima):
        # Optima that lose little on these rows need close neighbours too: they may lose more on other rows.
        if epsilon is None or rows.mean_loss(conservative) <= 2 * epsilon:
            last, end = rows.cost(conservative), rows.cost(aggressive)
            for between in _interpolate(conservative, aggressive, rows, per_exit):
                if per_exit:
                    between = _without_useless_exits(between, rows)
                if end + 1e-9 < (cost := rows.cost(between)) < last - 1e-9:
                    candidates.append(between)
                    last = cost
        candidates.append(aggressive)
    return candidates


class SimulatedRows:
    """Rows on which policies are simulated."""

    def __init__(self, confidences: np.ndarray, losses: np.ndarray, costs: RowCosts):
        self.confidences, self._losses, self._costs = confidences, losses, costs
        self._rows = np.arange(len(confidences))
        self._full_cost = float(costs.through[:, -1].mean())
        self._measured: dict[tuple[float, ...], tuple[float, float, float]] = {}

    def cost(self, policy: Policy) -> float:
        """Returns the mean cost under a policy, as a fraction of full depth's."""
        return self._measure(policy, policy.thresholds)[0]

    def mean_loss(self, policy: Policy) -> float:
        """Returns the mean loss under a policy."""
        return self._measure(policy, policy.thresholds)[1]

    def objective(self, policy: Policy, thresholds: tuple[float, ...], loss_weight: float) -> float:
        """Returns the mean cost plus the weighted, pessimistic loss under a policy with these thresholds."""
        cost, mean_loss, standard_error = self._measure(policy, thresholds)
        return cost + loss_weight * max(mean_loss + 2 * standard_error, 0.0)

    def prepare(self, policy: Policy, index: int, values: tuple[float, ...]) -> None:
        """Measures the policy with each of these thresholds at one exit, faster than one after the other."""
        tried = [_replace(policy.thresholds, index, value) for value in values if value < 1.0]
        tried = [thresholds for thresholds in tried if thresholds not in self._measured]
        if len(tried) < 2:
            return
        rows = len(self.confidences)
        enabled = _with_thresholds(policy, tried[0])
        places = range(self.confidences.shape[1])
        may = np.stack([criteria.may_leave(enabled, place, self.confidences[:, place]) for place in places], axis=1)
        may[:, index] = False
        otherwise = np.argmax(may, axis=1)
        at_index = self.confidences[:, index]
        limits = np.array([thresholds[index] for thresholds in tried], dtype=at_index.dtype)
        leaves = (at_index > limits[:, None]) & (otherwise > index)
        self._store(tried, enabled, np.where(leaves, index, np.broadcast_to(otherwise, (len(tried), rows))))

    def _measure(self, policy: Policy, thresholds: tuple[float, ...]) -> tuple[float, float, float]:
        """Returns cost, mean loss and its standard error. They are stored, as the search repeats thresholds.

        All policies must have the same criterion and temperatures.
        """
        if thresholds not in self._measured:
            policy = _with_thresholds(policy, thresholds)
            self._store([thresholds], policy, criteria.leaving_exit(policy, self.confidences)[None])
        return self._measured[thresholds]

    def _store(self, thresholds: list[tuple[float, ...]], policy: Policy, leaving: np.ndarray) -> None:
        """Stores the measurements of leaving exits (policies, rows), for policies with the same probes."""
        losses = self._losses[self._rows, leaving]
        costs = self._costs.under(policy, leaving).mean(axis=1) / self._full_cost
        errors = np.sqrt((losses**2).mean(axis=1) / len(self._rows))
        measurements = zip(costs.tolist(), losses.mean(axis=1).tolist(), errors.tolist(), strict=True)
        self._measured.update(zip(thresholds, measurements, strict=True))


def optimal_policies(policy: Policy, rows: SimulatedRows, per_exit: bool = True) -> list[Policy]:
    """Returns the policies that minimize the mean cost plus the weighted loss, for falling weights of the loss.

    For each weight, thresholds are optimized one exit after the other until none changes (coordinate descent, starting
    from the previous weight's thresholds). The loss is the mean plus two standard errors: on few rows, the wins of some
    thresholds compensate their losses by chance. A threshold of 1 disables an exit and saves its probe, so exits that
    cost more than they save are disabled.

    Returns:
        the full model first, then only policies that are cheaper than all before.
    """
    columns = list(rows.confidences.T[:-1]) if per_exit else [rows.confidences[:, :-1]]
    grid = [thresholds_between(column, _THRESHOLDS_PER_EXIT) for column in columns]
    current = policy.with_threshold((1.0,) * len(policy.thresholds))
    found = [(rows.cost(current), current)]
    for weight in _LOSS_WEIGHTS:
        best = rows.objective(policy, current.thresholds, weight)
        for _ in range(_MAX_SWEEPS):
            before = current
            for index, values in enumerate(grid):
                if per_exit:
                    rows.prepare(current, index, values)
                for value in values:
                    old = current.thresholds
                    tried = _replace(old, index, value) if per_exit else (value,) * len(old)
                    objective = rows.objective(policy, tried, weight)
                    if objective < best - 1e-12:
                        best, current = objective, current.with_threshold(tried)
            if current == before:
                break
        cost = rows.cost(current)
        if cost < found[-1][0] - 1e-9:
            found.append((cost, current))
    return [each for _, each in found]


def _interpolate(conservative: Policy, aggressive: Policy, rows: SimulatedRows, per_exit: bool) -> Iterator[Policy]:
    """Yields policies between two, whose thresholds move from the one's to the other's rank among the confidences."""
    thresholds = conservative.thresholds
    confidences = rows.confidences[:, : len(thresholds)].astype(np.float64)
    pools = list(confidences.T) if per_exit else [confidences.ravel()] * len(thresholds)
    pools = [np.sort(pool) for pool in pools]
    start, end = (
        [int(np.searchsorted(pool, value, "right")) for pool, value in zip(pools, each.thresholds, strict=True)]
        for each in (conservative, aggressive)
    )
    steps = int(np.ceil((rows.cost(conservative) - rows.cost(aggressive)) / _COST_STEP))
    for step in range(1, steps):
        ranks = [round(low + step / steps * (high - low)) for low, high in zip(start, end, strict=True)]
        yield conservative.with_threshold(
            [
                threshold if rank == unchanged else _threshold_at_rank(pool, rank)
                for threshold, rank, unchanged, pool in zip(thresholds, ranks, start, pools, strict=True)
            ]
        )


def _without_useless_exits(policy: Policy, rows: SimulatedRows) -> Policy:
    """Disables exits whose probes cost more than the rows that leave there save, where that adds no loss.

    A threshold between 1, which disables the exit, and a lower one may let next to no row leave.
    """
    for index, threshold in enumerate(policy.thresholds):
        if threshold < 1.0:
            without = policy.with_threshold(_replace(policy.thresholds, index, 1.0))
            if rows.cost(without) < rows.cost(policy) and rows.mean_loss(without) <= rows.mean_loss(policy):
                policy = without
    return policy


def _threshold_at_rank(ordered: np.ndarray, rank: int) -> float:
    """Returns a threshold that about `rank` of the sorted confidences do not exceed.

    It lies in the widest gap near that rank, so that rounding, which differs between batches on some backends, moves
    no row across it.
    """
    if not 0 < rank < len(ordered):
        return float(rank > 0)
    first = max(rank - 1, 1)
    gaps = np.diff(ordered[first - 1 : rank + 2])
    low = first - 1 + int(gaps.argmax())
    return float(np.clip((ordered[low] + ordered[low + 1]) / 2, 0.0, 1.0))


def _with_thresholds(policy: Policy, thresholds: tuple[float, ...]) -> Policy:
    """Returns a policy with thresholds from the grid, which are not checked again."""
    policy = copy.copy(policy)
    object.__setattr__(policy, "thresholds", thresholds)
    return policy


def _replace(values: tuple[float, ...], index: int, value: float) -> tuple[float, ...]:
    return (*values[:index], value, *values[index + 1 :])
