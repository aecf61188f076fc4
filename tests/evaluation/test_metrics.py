"""Metrics match scikit-learn, if it is installed, and their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itrex_sweet.metrics import METRICS, accuracy, f1, matthews
from itrex_sweet.tasks import SINGLE_LABEL, task_named


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(1, 60), st.integers(0, 99))
def test_matches_scikit_learn(labels, rows, seed):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(0, labels, rows), random.integers(0, labels, rows)
    assert matthews(predicted, truth) == pytest.approx(metrics.matthews_corrcoef(truth, predicted), abs=1e-9)
    names = list(range(max(truth.max(), predicted.max(), 1) + 1))
    if len(names) == 2:
        expected = metrics.f1_score(truth, predicted, zero_division=0.0)
    else:
        expected = metrics.f1_score(truth, predicted, labels=names, average="macro", zero_division=0.0)
    assert f1(predicted, truth) == pytest.approx(expected, abs=1e-9)


def test_definitions():
    truth, predicted = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0, 0])
    assert accuracy(predicted, truth) == 0.75
    assert f1(predicted, truth) == pytest.approx(2 * 2 / (3 + 3))
    assert matthews(predicted, truth) == pytest.approx((2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5))


def test_missing_answers_are_incorrect():
    truth = np.array([0, 1, 1, 0, 1, 0])
    for metric in (METRICS[name] for name in task_named(SINGLE_LABEL).metrics):
        assert metric(truth, truth) == pytest.approx(1.0)
        assert metric(np.array([0, 1, -1, 0, 1, 0]), truth) < 1.0
    assert matthews(np.full(4, 1), np.array([0, 1, 0, 1])) == 0.0  # not defined
