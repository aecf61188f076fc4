"""Candidates: the full model first, ever cheaper, and as good as trying every threshold."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet import criteria
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.config import Policy

COSTS = np.array([1.0, 2.0, 4.0])


def in_layers(rows: int) -> RowCosts:
    return RowCosts.of_layers(COSTS, rows)


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and losses that are the likelier the less sure an exit is."""
    random = np.random.default_rng(seed)
    confidences = random.uniform(0.4, 1.0, (rows, 3)).astype(np.float32)
    losses = (random.uniform(size=(rows, 3)) > confidences).astype(int) - (random.uniform(size=(rows, 3)) > 0.97)
    losses[:, -1] = 0
    return confidences, losses


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 150), st.integers(0, 99), st.booleans())
def test_ever_cheaper_from_the_full_model(rows, seed, per_exit):
    confidences, losses = drawn(rows, seed)
    found = candidate_policies(Policy.uniform(3), confidences, losses, in_layers(len(losses)), per_exit)
    assert found[0].thresholds == (1.0, 1.0)
    costs = [COSTS[criteria.leaving_exit(policy, confidences)].mean() for policy in found]
    assert all(later < earlier for earlier, later in itertools.pairwise(costs))
    if not per_exit:
        assert all(len(set(policy.thresholds)) == 1 for policy in found)


def test_an_exit_that_only_loses_is_switched_off():
    confidences, losses = drawn(400, 0)
    losses[:, 0] = 1
    for policy in candidate_policies(Policy.uniform(3), confidences, losses, in_layers(len(losses)))[:-1]:
        leaving = criteria.leaving_exit(policy, confidences)
        assert (leaving == 0).sum() == 0 or losses[np.arange(400), leaving].mean() > 0.2


@pytest.mark.parametrize("price", [20.0, 5.0, 2.0, 0.5])
def test_no_pair_of_thresholds_is_much_better(price):
    confidences, losses = drawn(200, 3)
    rows, grid = np.arange(200), np.linspace(0.4, 1.0, 25)

    def total(policy):
        leaving = criteria.leaving_exit(policy, confidences)
        return COSTS[leaving].mean() / COSTS[-1] + price * max(losses[rows, leaving].mean(), 0.0)

    best = min(total(Policy.uniform(3).with_threshold(pair)) for pair in itertools.product(grid, grid))
    found = candidate_policies(Policy.uniform(3), confidences, losses, in_layers(len(losses)))
    assert min(map(total, found)) < best + 0.05


def test_the_first_steps_are_careful():
    """Wins that happen to make up for losses do not: rows about which nothing is risked leave first."""
    random = np.random.default_rng(0)
    confidences = random.uniform(0.4, 1.0, (600, 3)).astype(np.float32)
    losses = random.choice([-1, 0, 1], p=[0.1, 0.8, 0.1], size=(600, 3))
    losses[confidences > 0.9] = 0
    losses[:, -1] = 0
    careful = candidate_policies(Policy.uniform(3), confidences, losses, in_layers(len(losses)))[1]
    leaving = criteria.leaving_exit(careful, confidences)
    assert (leaving < 2).mean() > 0.2 and not losses[np.arange(600), leaving].any()


def test_one_exit_leaves_nothing_to_choose():
    found = candidate_policies(Policy((), (1.0,)), np.ones((5, 1)), np.zeros((5, 1)), RowCosts.of_layers([4], 5))
    assert [policy.thresholds for policy in found] == [()]


def test_an_exit_that_does_not_pay_for_its_probe_is_switched_off():
    """A tenth of the rows may leave at the first exit, all of them at the second."""
    random = np.random.default_rng(0)
    confidences = random.uniform(0.5, 0.8, (500, 3)).astype(np.float32)
    confidences[:50, 0] = random.uniform(0.9, 0.99, 50)
    losses = np.zeros((500, 3), int)
    losses[50:, 0] = 1
    for probe, is_off in ((0.0, False), (0.5, True)):
        costs = RowCosts(np.tile(COSTS, (500, 1)), np.full(500, probe))
        careful = candidate_policies(Policy.uniform(3), confidences, losses, costs)[1]
        assert (careful.thresholds[0] == 1.0) == is_off
        leaving = criteria.leaving_exit(careful, confidences)
        assert (leaving[50:] == 1).all() and (leaving[:50] == is_off).mean() > 0.9


def test_probes_that_cost_more_than_they_save_leave_the_full_model_alone():
    confidences, losses = drawn(300, 1)
    costs = RowCosts(np.tile([4.0, 4.0, 4.0], (300, 1)), np.full(300, 0.1))
    found = candidate_policies(Policy.uniform(3), confidences, losses, costs)
    assert [policy.thresholds for policy in found] == [(1.0, 1.0)]
