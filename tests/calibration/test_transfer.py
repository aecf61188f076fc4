"""Transfer of thresholds to another model keeps the exit rates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.calibration import transfer_thresholds
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.policy import Policy

EXITS = (1, 2, 4)


def logits_of(rows: int, seed: int, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (rows, len(EXITS), 3)).astype(np.float32)


def outcomes_of(logits: np.ndarray) -> ExitOutcomes:
    return ExitOutcomes(logits, np.zeros(len(logits), int), EXITS, EXITS, logits[..., 0])


def leaving(logits: np.ndarray, policy: Policy) -> np.ndarray:
    return outcomes_of(logits).leaving(policy)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 80),
    seed=st.integers(0, 500),
    thresholds=st.tuples(st.floats(0.34, 0.99), st.floats(0.34, 0.99)),
    temperatures=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    criterion=st.sampled_from(["max_probability", "learned"]),
)
def test_exit_rates_are_kept(rows, seed, thresholds, temperatures, criterion):
    before, after = logits_of(rows, seed), logits_of(rows, seed + 1000, spread=1.0)
    policy = Policy(thresholds, (1.0, 1.0, 1.0), criterion)
    moved = transfer_thresholds(policy, outcomes_of(before), outcomes_of(after), temperatures)
    assert moved.temperatures == temperatures
    counts = [np.bincount(leaving(*pair), minlength=3) for pair in ((before, policy), (after, moved))]
    np.testing.assert_array_equal(*counts)


def test_same_model_keeps_every_exit():
    logits = logits_of(300, 7)
    policy = Policy((0.8, 0.9), (1.0, 1.0, 1.0))
    same = transfer_thresholds(policy, outcomes_of(logits), outcomes_of(logits))
    np.testing.assert_array_equal(leaving(logits, policy), leaving(logits, same))
    assert same.thresholds == pytest.approx(policy.thresholds, abs=0.03)


def test_thresholds_of_0_and_1_are_kept():
    before, after = logits_of(50, 1), logits_of(50, 2)
    for thresholds in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        moved = transfer_thresholds(Policy(thresholds, (1.0,) * 3), outcomes_of(before), outcomes_of(after))
        assert moved.thresholds == thresholds


def test_non_finite_rows_never_leave_early():
    before, after = logits_of(40, 3), logits_of(40, 4)
    after[:5, 0] = np.nan
    policy = Policy((0.5, 0.9), (1.0,) * 3)
    moved = transfer_thresholds(policy, outcomes_of(before), outcomes_of(after))
    assert (leaving(after, moved)[:5] > 0).all()
