"""Candidate policies: the full model first, decreasing cost, near-optimal, and dense up to the budget."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet import criteria
from itrex_sweet.calibration.bounds import binomial_p_value, certified
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.calibration.search import SimulatedRows, candidate_policies, optimal_policies
from itrex_sweet.policy import Policy

COSTS = np.array([1.0, 2.0, 4.0])


def in_layers(rows: int) -> RowCosts:
    return RowCosts.from_layers(COSTS, rows)


def simulated(confidences: np.ndarray, losses: np.ndarray) -> SimulatedRows:
    return SimulatedRows(confidences, losses, in_layers(len(losses)))


def draw_rows(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns confidences, and losses that are less likely where an exit is confident."""
    random = np.random.default_rng(seed)
    confidences = random.uniform(0.4, 1.0, (rows, 3)).astype(np.float32)
    losses = (random.uniform(size=(rows, 3)) > confidences).astype(int) - (random.uniform(size=(rows, 3)) > 0.97)
    losses[:, -1] = 0
    return confidences, losses


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 150), st.integers(0, 99), st.booleans(), st.sampled_from([None, 0.01, 0.1]))
def test_candidates_start_at_the_full_model_and_get_cheaper(rows, seed, per_exit, epsilon):
    confidences, losses = draw_rows(rows, seed)
    found = candidate_policies(Policy.uniform(3), confidences, losses, in_layers(len(losses)), per_exit, epsilon)
    assert found[0].thresholds == (1.0, 1.0)
    costs = [COSTS[criteria.leaving_exit(policy, confidences)].mean() for policy in found]
    assert all(later < earlier for earlier, later in itertools.pairwise(costs))
    if not per_exit:
        assert all(len(set(policy.thresholds)) == 1 for policy in found)


def test_exit_that_only_loses_is_disabled():
    confidences, losses = draw_rows(400, 0)
    losses[:, 0] = 1
    for policy in optimal_policies(Policy.uniform(3), simulated(confidences, losses))[:-1]:
        leaving = criteria.leaving_exit(policy, confidences)
        assert (leaving == 0).sum() == 0 or losses[np.arange(400), leaving].mean() > 0.2


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_interpolated_policies_probe_no_exit_that_costs_more_than_it_saves(seed):
    confidences, losses = draw_rows(600, seed)
    costs = RowCosts(np.tile(COSTS, (600, 1)), np.full(600, 0.5))
    rows = SimulatedRows(confidences, losses, costs)
    optima = {policy.thresholds for policy in optimal_policies(Policy.uniform(3), rows)}
    found = candidate_policies(Policy.uniform(3), confidences, losses, costs)
    between = [policy for policy in found if policy.thresholds not in optima]
    assert len(between) > 10
    for policy in between:
        for index, threshold in enumerate(policy.thresholds):
            if threshold < 1.0:
                disabled = [1.0 if place == index else value for place, value in enumerate(policy.thresholds)]
                without = policy.with_threshold(disabled)
                assert rows.cost(without) >= rows.cost(policy) or rows.mean_loss(without) > rows.mean_loss(policy)


@pytest.mark.parametrize("price", [20.0, 5.0, 2.0, 0.5])
def test_optima_are_close_to_an_exhaustive_search(price):
    confidences, losses = draw_rows(200, 3)
    rows, grid = np.arange(200), np.linspace(0.4, 1.0, 25)

    def total(policy):
        leaving = criteria.leaving_exit(policy, confidences)
        return COSTS[leaving].mean() / COSTS[-1] + price * max(losses[rows, leaving].mean(), 0.0)

    best = min(total(Policy.uniform(3).with_threshold(pair)) for pair in itertools.product(grid, grid))
    found = optimal_policies(Policy.uniform(3), simulated(confidences, losses))
    assert min(map(total, found)) < best + 0.05


def test_first_optimum_is_conservative():
    """Wins that compensate losses by chance are not exploited: rows without risk leave first."""
    random = np.random.default_rng(0)
    confidences = random.uniform(0.4, 1.0, (600, 3)).astype(np.float32)
    losses = random.choice([-1, 0, 1], p=[0.1, 0.8, 0.1], size=(600, 3))
    losses[confidences > 0.9] = 0
    losses[:, -1] = 0
    conservative = optimal_policies(Policy.uniform(3), simulated(confidences, losses))[1]
    leaving = criteria.leaving_exit(conservative, confidences)
    assert (leaving < 2).mean() > 0.2 and not losses[np.arange(600), leaving].any()


def test_single_exit_has_one_policy():
    found = candidate_policies(Policy((), (1.0,)), np.ones((5, 1)), np.zeros((5, 1)), RowCosts.from_layers([4], 5))
    assert [policy.thresholds for policy in found] == [()]


def test_exit_that_saves_less_than_its_probe_is_disabled():
    """A tenth of the rows can leave at the first exit without loss, all rows at the second."""
    random = np.random.default_rng(0)
    confidences = random.uniform(0.5, 0.8, (500, 3)).astype(np.float32)
    confidences[:50, 0] = random.uniform(0.9, 0.99, 50)
    losses = np.zeros((500, 3), int)
    losses[50:, 0] = 1
    for probe, is_off in ((0.0, False), (0.5, True)):
        costs = RowCosts(np.tile(COSTS, (500, 1)), np.full(500, probe))
        conservative = optimal_policies(Policy.uniform(3), SimulatedRows(confidences, losses, costs))[1]
        assert (conservative.thresholds[0] == 1.0) == is_off
        leaving = criteria.leaving_exit(conservative, confidences)
        assert (leaving[50:] == 1).all() and (leaving[:50] == is_off).mean() > 0.9


def test_expensive_probes_leave_only_the_full_model():
    confidences, losses = draw_rows(300, 1)
    costs = RowCosts(np.tile([4.0, 4.0, 4.0], (300, 1)), np.full(300, 0.1))
    found = optimal_policies(Policy.uniform(3), SimulatedRows(confidences, losses, costs))
    assert [policy.thresholds for policy in found] == [(1.0, 1.0)]


def cheapest_certified(policies, confidences, losses, testing, epsilon=0.02):
    """Returns the mean cost of the cheapest certified policy, by fixed-sequence testing, as in calibration."""
    counts = [LossCounts.of(losses[testing, criteria.leaving_exit(each, confidences[testing])]) for each in policies]
    passed = certified([binomial_p_value(each, epsilon) for each in counts[1:]], 0.05)
    return COSTS[criteria.leaving_exit(policies[passed], confidences[testing])].mean()


def test_dense_candidates_certify_a_cheaper_policy():
    """Between the last optimum that is certified and the first that is not, there are cheaper policies to certify."""
    coarse_costs, dense_costs = [], []
    for seed in range(8):
        random = np.random.default_rng(seed)
        confidences = random.beta(2, 1, (900, 3)).astype(np.float32)
        losses = (random.uniform(size=(900, 3)) < 0.3 * (1 - confidences) ** 2).astype(int) * [1, 1, 0]
        tuning, testing = np.arange(300), np.arange(300, 900)
        rows = SimulatedRows(confidences[tuning], losses[tuning], in_layers(300))
        optima = optimal_policies(Policy.uniform(3), rows)
        dense = candidate_policies(Policy.uniform(3), confidences[tuning], losses[tuning], in_layers(300), epsilon=0.02)
        coarse_costs.append(cheapest_certified(optima, confidences, losses, testing))
        dense_costs.append(cheapest_certified(dense, confidences, losses, testing))
        costs = np.array([rows.cost(each) for each in dense if rows.mean_loss(each) <= 0.02])
        assert (costs[:-1] - costs[1:]).max() < 0.04 and len(dense) < 150
    assert np.mean(dense_costs) < 0.8 * np.mean(coarse_costs)
