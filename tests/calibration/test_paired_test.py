"""Validity and power of the exact test of paired losses, by complete enumeration and against an independent sum."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.calibration.bounds import betting_p_value
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.calibration.paired_test import _score, _share_interval, _upper_bound, exact_paired_p_value

GAMMA = 1e-4


@functools.cache
def enumerate_outcomes(rows: int, epsilon: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns lost rows, won rows and p-values of all outcomes."""
    outcomes = [(lost, won) for lost in range(rows + 1) for won in range(rows + 1 - lost)]
    p_values = [exact_paired_p_value(LossCounts(*each, rows), epsilon, GAMMA) for each in outcomes]
    lost, won = np.array(outcomes).T
    return lost, won, np.array(p_values)


def probabilities(lost: np.ndarray, won: np.ndarray, rows: int, p: float, q: float) -> np.ndarray:
    """Returns multinomial probabilities of outcomes."""
    logarithm = np.array([math.lgamma(k + 1) for k in range(rows + 1)])
    rest = rows - lost - won
    shares = np.log(np.maximum([p, q, 1 - p - q], 1e-300))
    return np.exp(
        logarithm[rows]
        - (logarithm[lost] + logarithm[won] + logarithm[rest])
        + lost * shares[0]
        + won * shares[1]
        + rest * shares[2]
    )


def nuisance_grid(epsilon: float, size: int = 400) -> np.ndarray:
    """Returns shares of discordant rows from ε to 1, dense near ε."""
    return epsilon + (1 - epsilon) * np.linspace(0.0, 1.0, size) ** 2


@pytest.mark.parametrize(("rows", "epsilon"), [(24, 0.1), (40, 0.2), (40, 0.07), (18, 0.45)])
def test_size_is_at_most_delta_over_the_whole_nuisance_range(rows, epsilon):
    """All outcomes are enumerated, so the rejection probability of every distribution is exact."""
    lost, won, p_values = enumerate_outcomes(rows, epsilon)
    largest = dict.fromkeys((0.01, 0.05, 0.1, 0.3), 0.0)
    for share, beyond in itertools.product(nuisance_grid(epsilon), (0.0, 0.03)):
        mean_loss = min(epsilon + beyond, share)  # at the boundary of the null hypothesis, and inside
        outcome = probabilities(lost, won, rows, (share + mean_loss) / 2, (share - mean_loss) / 2)
        assert outcome.sum() == pytest.approx(1.0, abs=1e-9)
        for delta in largest:
            largest[delta] = max(largest[delta], outcome[p_values <= delta].sum())
    assert all(size <= delta for delta, size in largest.items())
    assert largest[0.3] > 0.2, "the test is not vacuous"


@pytest.mark.parametrize(("rows", "epsilon"), [(24, 0.1), (40, 0.2), (18, 0.45)])
def test_p_value_is_the_largest_probability_of_the_region(rows, epsilon):
    lost, won, p_values = enumerate_outcomes(rows, epsilon)
    statistics = _score(lost, lost + won, rows, epsilon)
    for index in range(0, len(lost), 7):
        low, high = _share_interval(int(lost[index] + won[index]), rows, GAMMA)
        if (lost - won)[index] >= rows * epsilon or high <= epsilon:
            continue
        region = statistics <= statistics[index] + 1e-9
        grid = max(low, epsilon) + (high - max(low, epsilon)) * np.linspace(0.0, 1.0, 300) ** 2
        largest = max(
            probabilities(lost, won, rows, (d + epsilon) / 2, (d - epsilon) / 2)[region].sum() for d in grid.tolist()
        )
        assert largest - 1e-12 <= p_values[index] <= 1.03 * largest + GAMMA + 0.003


@pytest.mark.parametrize(("rows", "epsilon", "won"), [(500, 0.01, 0.0), (1200, 0.01, 0.01)])
def test_type_one_error_of_many_rows(rows, epsilon, won):
    """The rejection region of every number of discordant rows is found by bisection, and its probability is summed."""
    shares = np.array([won + epsilon + won, 1.3 * won + epsilon + 1.3 * won + 1e-3])
    low, high = (int(rows * d + s * 6 * math.sqrt(rows * d)) for d, s in ((shares[0], -1), (shares[1], 1)))
    sizes = np.zeros(2)
    for discordant in range(max(0, low), high + 1):
        inside, outside = -1, discordant + 1
        while outside - inside > 1:
            middle = (inside + outside) // 2
            counts = LossCounts(middle, discordant - middle, rows)
            inside, outside = (
                (middle, outside) if exact_paired_p_value(counts, epsilon, GAMMA) <= 0.05 else (inside, middle)
            )
        lost = np.arange(inside + 1)
        for place, share in enumerate(shares):
            sizes[place] += probabilities(
                lost, discordant - lost, rows, (share + epsilon) / 2, (share - epsilon) / 2
            ).sum()
    assert (sizes <= 0.05).all() and (sizes > 0.03).all()


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.005, 0.01, 0.1, 0.5, 0.9]))
def test_score_increases_with_losses_for_fixed_discordant_rows(rows, data, epsilon):
    discordant = data.draw(st.integers(0, rows))
    lost = np.arange(discordant + 1)
    statistics = _score(lost, np.full_like(lost, discordant), rows, epsilon)
    below = 2 * lost - discordant < rows * epsilon
    assert (np.diff(statistics[below]) > 0).all() and (statistics[below] < 0).all()


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.013, 0.5, 0.99, 1.0])
def test_interval_of_the_share_covers_it(share):
    counts = np.arange(201)
    missed = [not low <= share <= high for low, high in (_share_interval(int(k), 200, 0.1) for k in counts)]
    assert probabilities(counts, np.zeros_like(counts), 200, share, 0.0)[missed].sum() <= 0.1


def test_bracket_exceeds_a_maximum_between_nodes():
    """Between two distant nodes, the bound of the second derivative covers any maximum."""
    rows, epsilon = 100, 0.05
    nodes = np.array([0.1, 0.2])
    ends, inside = (
        np.array([math.comb(rows, 15) * d**15 * (1 - d) ** (rows - 15) for d in shares]) for shares in (nodes, [0.15])
    )
    assert ends.max() < inside[0] <= _upper_bound(nodes, ends, rows, epsilon)


def test_extreme_counts():
    assert exact_paired_p_value(LossCounts(0, 0, 0), 0.01) == 1.0
    assert exact_paired_p_value(LossCounts(20, 0, 2000), 0.01) == 1.0
    assert exact_paired_p_value(LossCounts(0, 2000, 2000), 0.01) < 0.001
    assert exact_paired_p_value(LossCounts(0, 0, 297), 0.01) > 0.05 > exact_paired_p_value(LossCounts(0, 0, 300), 0.01)
    assert 0.0 < exact_paired_p_value(LossCounts(6900, 5000, 200_000), 0.01) < 1.0


def test_exact_test_has_more_power_than_betting():
    """Counts of 2000 rows near the outcome that 0.8 % lost and 0.4 % won rows have most often."""
    certified = dict.fromkeys(("exact", "betting"), 0)
    random = np.random.default_rng(0)
    for lost, won, _ in random.multinomial(2000, [0.008, 0.004, 0.988], size=300).tolist():
        counts = LossCounts(lost, won, 2000)
        certified["exact"] += exact_paired_p_value(counts, 0.01, GAMMA) <= 0.05
        certified["betting"] += betting_p_value(counts, 0.01) <= 0.05
    assert certified["exact"] > 200 > 100 > certified["betting"]
