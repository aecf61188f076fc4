"""Temperature scaling finds the maximum likelihood; calibration errors match their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from itrex_sweet.calibration.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE


def drawn(rows: int, labels: int, true_temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits, and labels drawn from their probabilities at a temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (rows, labels))
    powers = np.exp(logits / true_temperature)
    shares = (powers / powers.sum(1, keepdims=True)).cumsum(1)
    return logits, (generator.random((rows, 1)) > shares).sum(1).clip(max=labels - 1)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("labels", [2, 5])
def test_recovers_the_true_temperature(true_temperature, labels):
    logits, truth = drawn(20_000, labels, true_temperature)
    assert fit_temperature(logits, truth) == pytest.approx(true_temperature, rel=0.06)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(2, 60), nudge=st.sampled_from([0.8, 0.95, 1.05, 1.25]))
def test_fitted_temperature_maximizes_the_likelihood(seed, rows, nudge):
    logits, truth = drawn(rows, 3, 1.5, seed)
    fitted = fit_temperature(logits, truth)
    other = float(np.clip(fitted * nudge, MIN_TEMPERATURE, MAX_TEMPERATURE))
    best = negative_log_likelihood(logits, truth, fitted)
    assert best <= negative_log_likelihood(logits, truth, other) + 1e-9


def test_limits_of_the_temperature():
    logits = np.array([[3.0, 0.0], [0.0, 2.0]])
    assert MIN_TEMPERATURE <= fit_temperature(logits, np.array([0, 1])) < 0.06  # the likelihood is flat below
    assert fit_temperature(logits, np.array([1, 0])) == pytest.approx(MAX_TEMPERATURE)
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1.0


def test_non_finite_rows_are_ignored():
    logits, truth = drawn(200, 2, 2.0)
    broken = np.vstack([logits, [[np.nan, 0.0], [np.inf, 1.0]]])
    labels = np.append(truth, [0, 1])
    assert fit_temperature(broken, labels) == fit_temperature(logits, truth)
    assert expected_calibration_error(broken, labels) == expected_calibration_error(logits, truth)


def test_calibration_error_and_brier_score_by_hand():
    half = np.log(np.array([[0.5, 0.5], [0.8, 0.2], [0.2, 0.8], [0.8, 0.2]]))
    labels = np.array([0, 0, 1, 1])
    # One bin holds the row of confidence 0.5, which is right; one the three of 0.8, of which two are.
    assert expected_calibration_error(half, labels) == pytest.approx((abs(1 - 0.5) + abs(2 - 3 * 0.8)) / 4)
    assert brier_score(half, labels) == pytest.approx((0.5 + 2 * 0.08 + 1.28) / 4)
    assert negative_log_likelihood(half, labels) == pytest.approx(-np.log([0.5, 0.8, 0.8, 0.2]).mean())


def test_fitting_lowers_the_calibration_error():
    logits, truth = drawn(5000, 3, 3.0)
    fitted = fit_temperature(logits, truth)
    assert expected_calibration_error(logits, truth, fitted) < 0.3 * expected_calibration_error(logits, truth)
    assert brier_score(logits, truth, fitted) < brier_score(logits, truth)
