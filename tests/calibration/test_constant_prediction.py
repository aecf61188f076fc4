"""Tests of the warning about budgets that a constant prediction keeps."""

import numpy as np
import pytest

from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.constant_prediction import most_frequent_prediction, warn_of_constant_prediction
from itrex_sweet.calibration.guarantees import PairedPredictions, guarantee_for
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

NAMES = ("ok", "fraud", "spam")


def warn(caplog, predictions, budget, labels=None, task=SINGLE_LABEL, tolerance=None) -> str:
    caplog.clear()
    full = PairedPredictions(predictions, predictions, labels, TASKS[task], tolerance)
    warn_of_constant_prediction(full, guarantee_for(budget), NAMES)
    return caplog.text


def test_rare_labels(caplog):
    predictions = np.array([0] * 994 + [1] * 4 + [2] * 2)
    text = warn(caplog, predictions, Budget(max_agreement_drop=0.01))
    assert "Always predicting 'ok' would keep this budget too: the drop is 0.60 % of at most 1 %" in text
    assert warn(caplog, predictions, Budget(max_agreement_drop=0.005)) == ""
    labels = np.where(np.arange(1000) < 2, 1, predictions)
    assert "the drop is 0.40 %" not in warn(caplog, predictions, Budget(max_accuracy_drop=0.01), labels)
    assert "the drop is 0.60 %" in warn(caplog, predictions, Budget(max_accuracy_drop=0.01), labels)
    assert warn(caplog, predictions, Budget(max_metric_drop=0.01, metric="matthews"), labels) == ""
    assert warn(caplog, predictions, Budget(max_layers=2.0)) == ""


def test_sets_of_labels_and_values(caplog):
    sets = np.array([[0, 0, 1]] * 95 + [[1, 0, 1]] * 5)
    text = warn(caplog, sets, Budget(max_agreement_drop=0.05), task=MULTI_LABEL)
    assert "Always predicting ['spam']" in text and "macro_f1" in text
    assert warn(caplog, sets, Budget(max_agreement_drop=0.04), task=MULTI_LABEL) == ""
    values = np.array([2.5] * 90 + [4.0] * 10, dtype=np.float32)
    budget = Budget(max_agreement_drop=0.1, tolerance=0.5)
    text = warn(caplog, values, budget, task=REGRESSION, tolerance=0.5)
    assert "Always predicting 2.5" in text and "f1" not in text
    assert warn(caplog, -values[10:30], budget, task=REGRESSION, tolerance=0.5) != ""
    assert warn(caplog, values[80:], budget, task=REGRESSION, tolerance=0.5) == ""


@pytest.mark.parametrize(
    ("task", "predictions", "expected"),
    [
        (SINGLE_LABEL, [2, 0, 2], 2),
        (MULTI_LABEL, [[1, 0], [0, 1], [0, 1]], [0, 1]),
        (REGRESSION, [1.0, 7.0, 2.0], 2.0),
    ],
)
def test_most_frequent_prediction(task, predictions, expected):
    assert np.array_equal(most_frequent_prediction(np.array(predictions), TASKS[task]), expected)
