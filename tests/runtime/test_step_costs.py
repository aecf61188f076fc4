"""Tests of the scheduler's model of time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.runtime.dispatch import MostAnswers
from itrex_sweet.runtime.step_costs import StepCosts

positive = st.floats(1e-5, 1e-2)


def observed(fixed: float, per_token: float, leaving: float = 0.5, runs: int = 200) -> StepCosts:
    costs = StepCosts(3)
    for run in range(runs):
        tokens = 10 + 37 * run % 400
        for exit_index in range(3):
            left = 32 if exit_index == 2 else round(32 * leaving)
            costs.observe(exit_index, 32, left, tokens, fixed + per_token * tokens)
    return costs


@given(fixed=positive, per_token=st.floats(1e-6, 1e-4), tokens=st.integers(1, 1000))
def test_estimates_follow_the_runs(fixed, per_token, tokens):
    costs = observed(fixed, per_token)
    assert costs.seconds(1, tokens) == pytest.approx(fixed + per_token * tokens, rel=0.02)
    assert costs.share_leaving(0) == pytest.approx(0.5, abs=0.02)
    for _ in range(400):
        costs.observe_to_the_end([32, 0, 0], 100, 2 * (costs.seconds_to_the_end(100)))
    assert costs.seconds(1, tokens) > 2 * (fixed + per_token * tokens)
    assert costs.share_leaving(0) > 0.95


def test_table_of_the_calibration_gives_the_first_estimates():
    through = [[[0.1, 0.4], [0.1, 0.4]], [[0.3, 1.2], [0.3, 1.2]]]  # proportional to tokens
    costs = StepCosts(2, {"batch_sizes": [1, 8], "lengths": [8, 32], "through": through})
    assert costs.seconds(0, 80) == pytest.approx(1e-3, rel=1e-6)
    assert costs.seconds(1, 80) == pytest.approx(2e-3, rel=1e-6)


def test_interrupted_run_hardly_counts():
    costs = observed(1e-3, 1e-5)
    before = costs.seconds(1, 100)
    costs.observe(1, 32, 16, 100, 100.0)
    assert costs.seconds(1, 100) < 1.5 * before


def test_survivors_are_regrouped_only_where_it_pays():
    cheap, dear = MostAnswers(observed(1e-5, 1e-6)), MostAnswers(observed(2e-3, 1e-6))
    assert cheap.runs_to_the_end(8, 200, 32, True) and cheap.runs_to_the_end(8, 200, 32, False)
    assert not dear.runs_to_the_end(8, 200, 32, True) and dear.runs_to_the_end(8, 200, 32, False)
    slow = MostAnswers(observed(1e-5, 1e-4))
    assert not slow.runs_to_the_end(32, 1000, 32, False)  # longer than rows may be held
    assert not MostAnswers(StepCosts(3)).runs_to_the_end(1, 10, 32, False)  # not known yet


def test_exits_that_no_row_reaches_keep_their_estimate():
    costs = observed(1e-4, 1e-6)
    for _ in range(40_000):
        costs.observe_to_the_end([1, 0, 0], 10, 1e-4)
    assert costs.share_leaving(2) == pytest.approx(1.0) and costs.share_leaving(1) == pytest.approx(0.5, abs=0.02)
