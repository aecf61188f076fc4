"""Validity of the p-values, by exact sums and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.calibration.bounds import _log_wealth, betting_p_value, binomial_p_value, certified
from itrex_sweet.calibration.counts import LossCounts

counts_strategy = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 600)).map(
    lambda parts: LossCounts(parts[0], parts[1], sum(parts))
)
epsilon_strategy = st.sampled_from([0.005, 0.01, 0.02, 0.1, 0.5])


@given(st.integers(1, 40), st.data(), epsilon_strategy)
def test_binomial_p_value_is_the_exact_tail(rows, data, epsilon):
    lost = data.draw(st.integers(0, rows))
    expected = sum(math.comb(rows, i) * epsilon**i * (1 - epsilon) ** (rows - i) for i in range(lost + 1))
    assert binomial_p_value(LossCounts(lost, 0, rows), epsilon) == pytest.approx(min(1.0, expected), rel=1e-9)


@pytest.mark.parametrize("p_value", [binomial_p_value, betting_p_value])
@given(counts=counts_strategy, epsilon=epsilon_strategy)
def test_p_value_grows_with_losses(p_value, counts, epsilon):
    now = p_value(counts, epsilon)
    assert 0.0 <= now <= 1.0
    if counts.lost + counts.won < counts.rows:
        assert p_value(LossCounts(counts.lost + 1, counts.won, counts.rows), epsilon) >= now * (1 - 1e-9)


@pytest.mark.parametrize("p_value", [binomial_p_value, betting_p_value])
def test_no_rows_and_losses_above_the_budget_are_not_significant(p_value):
    assert p_value(LossCounts(0, 0, 0), 0.01) == 1.0
    assert p_value(LossCounts(50, 0, 500), 0.01) > 0.9


@given(epsilon_strategy, st.floats(0.0, 0.2), st.integers(1, 3))
def test_expected_wealth_is_one_at_the_null(epsilon, won, rows):
    lost = epsilon + won
    shares = (lost, won, 1 - lost - won)
    expected = 0.0
    for losses in itertools.product((0, 1, 2), repeat=rows):
        counts = LossCounts(losses.count(0), losses.count(1), rows)
        expected += math.prod(shares[kind] for kind in losses) * math.exp(_log_wealth(counts, epsilon))
    assert expected == pytest.approx(1.0, abs=1e-9)


def test_only_the_paired_test_credits_wins():
    assert (
        betting_p_value(LossCounts(30, 60, 2000), 0.01) < 0.01 < 0.9 < binomial_p_value(LossCounts(30, 60, 2000), 0.01)
    )


def share_certified(p_value, lost: float, won: float, epsilon: float, delta: float, rows: int) -> float:
    """Returns how often a policy with these probabilities of losses and wins is certified."""
    random = np.random.default_rng(0)
    draws = random.multinomial(rows, [lost, won, 1 - lost - won], size=4000)
    seen = {}
    for draw in map(tuple, draws.tolist()):
        seen[draw] = seen.get(draw, 0) + 1
    return sum(n for draw, n in seen.items() if p_value(LossCounts(draw[0], draw[1], rows), epsilon) <= delta) / 4000


def plug_in(counts: LossCounts, epsilon: float) -> float:
    """Returns an invalid p-value, which takes the observed loss for the true one."""
    return 0.0 if counts.mean_loss <= epsilon else 1.0


@pytest.mark.parametrize("rows", [100, 400, 1500])
@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("delta", [0.05, 0.1])
@pytest.mark.parametrize("won", [0.0, 0.03])
def test_type_one_error_is_at_most_delta(rows, epsilon, delta, won):
    worst = epsilon + won + 1e-4  # just above the budget, where errors are most likely
    allowed = delta + 3 * math.sqrt(delta * (1 - delta) / 4000)
    assert share_certified(betting_p_value, worst, won, epsilon, delta, rows) <= allowed
    if won == 0.0:
        assert share_certified(binomial_p_value, worst, 0.0, epsilon, delta, rows) <= allowed
    assert share_certified(plug_in, worst, won, epsilon, delta, rows) > allowed


def test_power_is_high_with_many_rows():
    """With enough rows, a policy without mean loss is almost always certified."""
    assert share_certified(betting_p_value, 0.01, 0.01, 0.01, 0.05, 6000) > 0.9
    assert share_certified(binomial_p_value, 0.004, 0.0, 0.01, 0.05, 3000) > 0.9


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [([], 0), ([0.04, 0.01], 2), ([0.04, 0.06, 0.001], 1), ([0.06, 0.001], 0), ([0.05], 1), ([float("nan")], 0)],
)
def test_fixed_sequence_stops_at_the_first_failure(p_values, expected):
    assert certified(p_values, 0.05) == expected
