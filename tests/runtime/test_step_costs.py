"""Tests of the scheduler's model of time."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.runtime.dispatch import MostAnswers, Plan
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


def of_table(fixed: float, per_token: float, exits: int = 3) -> StepCosts:
    """Returns estimates of a calibration's table in which each segment takes `fixed + per_token * tokens` seconds."""
    sizes, lengths = np.array([1, 8, 32]), np.array([8, 32])
    tokens = np.outer(sizes, lengths)
    through = [1000 * (exit_index + 1) * (fixed + per_token * tokens) / sizes[:, None] for exit_index in range(exits)]
    stored = {"batch_sizes": sizes.tolist(), "lengths": lengths.tolist(), "through": np.array(through).tolist()}
    return StepCosts(exits, stored)


def queue(rows: int, tokens_each: int = 30) -> SimpleNamespace:
    front = SimpleNamespace(next_length=lambda: tokens_each) if rows else None
    return SimpleNamespace(rows=rows, tokens=rows * tokens_each, front=front)


def planned(costs: StepCosts, rows: int, waiting: int = 0, tokens_each: int = 30, exit_index: int = 0) -> Plan:
    return MostAnswers(costs, max_run_seconds=0.01).plan(
        exit_index, queue(rows, tokens_each), [queue(waiting), queue(0)], 32
    )


def test_new_rows_run_to_the_end_unless_regrouping_pays():
    cheap, dear = of_table(1e-5, 1e-6), of_table(2e-3, 1e-6)
    assert planned(cheap, 8).to_the_end and planned(cheap, 8, waiting=3).to_the_end
    assert planned(dear, 8).to_the_end  # there are no rows to join them
    assert not planned(dear, 8, waiting=3).to_the_end and not planned(dear, 33).to_the_end
    for _ in range(400):
        dear.observe_step(4e-3)
    assert planned(dear, 8, waiting=3).to_the_end  # steps cost more than regrouping saves


def test_waiting_for_the_interpreter_does_not_make_regrouping_pay():
    costs = of_table(1e-5, 1e-6)
    for _ in range(400):
        costs.observe(1, 32, 16, 30, 5e-3)
    assert costs.seconds(1, 30) > 1e-3 and planned(costs, 33).to_the_end


@given(fixed=st.floats(1e-6, 1e-3), per_token=st.floats(1e-6, 1e-4), step=st.floats(1e-5, 1e-3))
def test_runs_take_the_bound_or_are_not_wasteful(fixed, per_token, step):
    costs = of_table(fixed, per_token)
    for _ in range(600):
        costs.observe_step(step)
    for exit_index, plan in enumerate((planned(costs, 1), planned(costs, 1, exit_index=1))):
        estimate = costs.seconds(1, plan.max_tokens) if exit_index else costs.seconds_to_the_end(plan.max_tokens)
        constant = costs.step_seconds + (costs.seconds(1, 0) if exit_index else costs.seconds_to_the_end(0))
        total = estimate + costs.step_seconds
        assert total == pytest.approx(max(0.01, constant / 0.03), rel=1e-6)


def test_rows_that_take_long_run_segment_by_segment():
    costs = of_table(1e-5, 1e-4)
    assert planned(costs, 5).to_the_end
    long = planned(costs, 5, tokens_each=1000)
    assert not long.to_the_end and long.max_tokens < 1000
    assert not planned(StepCosts(3), 1).to_the_end  # not known yet
    assert planned(StepCosts(3), 1).max_tokens == float("inf")


def test_interrupted_steps_hardly_count():
    costs = StepCosts(3)
    before = costs.step_seconds
    costs.observe_step(100.0)
    assert before < costs.step_seconds < 1.1 * before


def test_exits_that_no_row_reaches_keep_their_estimate():
    costs = observed(1e-4, 1e-6)
    for _ in range(40_000):
        costs.observe_to_the_end([1, 0, 0], 10, 1e-4)
    assert costs.share_leaving(2) == pytest.approx(1.0) and costs.share_leaving(1) == pytest.approx(0.5, abs=0.02)
