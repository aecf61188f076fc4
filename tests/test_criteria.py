"""Tests of confidence measures and exit decisions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from itrex_sweet import confidence_formulas, criteria
from itrex_sweet.errors import ConfigError
from itrex_sweet.policy import CRITERIA, Policy
from itrex_sweet.probabilities import softmax

logits_strategy = arrays.arrays(np.float32, (5, 3), elements=st.floats(-50, 50, width=32))


@given(logits_strategy, st.floats(0.05, 20))
def test_probabilities_are_a_softmax_with_temperature(logits, temperature):
    expected = torch.softmax(torch.from_numpy(logits).double() / temperature, dim=-1)
    np.testing.assert_allclose(softmax(logits, temperature), expected, atol=1e-5)
    np.testing.assert_allclose(confidence_formulas.max_probability(logits, temperature), expected.amax(-1), atol=1e-5)


def test_confidence_of_one_does_not_exceed_a_threshold_of_one():
    policy = Policy((1.0,), (1.0, 1.0))
    confidences = criteria.confidence(policy, 0, np.array([[1000.0, -1000.0]], np.float32))[0]
    assert confidences[0] == 1.0
    assert not criteria.may_leave(policy, 0, confidences)[0]
    assert criteria.may_leave(policy, 1, confidences)[0]  # every row that reaches the last exit leaves


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_rows_with_non_finite_logits_do_not_leave_early(broken):
    policy = Policy((0.0,), (1.0, 1.0))
    logits = np.array([[broken, 0.0], [0.3, 0.2]], np.float32)
    if broken == -float("inf"):
        logits[0] = broken
    leaving = criteria.may_leave(policy, 0, criteria.confidence(policy, 0, logits)[0])
    assert leaving.tolist() == [False, True]


def test_temperature_and_threshold_per_exit():
    policy = Policy((0.6, 0.9), (1.0, 10.0, 1.0))
    logits = np.array([[1.0, 0.0]], np.float32)
    assert criteria.may_leave(policy, 0, criteria.confidence(policy, 0, logits)[0]).all()
    assert criteria.confidence(policy, 1, logits)[0][0] == pytest.approx(1 / (1 + np.exp(-0.1)), abs=1e-6)
    assert not criteria.may_leave(policy, 1, criteria.confidence(policy, 1, logits)[0]).any()


@given(logits_strategy, st.floats(0.05, 20))
def test_entropy_and_margin_equal_their_formulas(logits, temperature):
    scaled = torch.from_numpy(logits).double() / temperature
    tolerance = 1e-5 + np.finfo(np.float32).eps * scaled.abs().max().item()  # of rounding the scaled logits to float32
    shares = torch.softmax(scaled, dim=-1)
    expected = 1 + (shares * shares.clamp_min(1e-300).log()).sum(-1) / np.log(3)
    np.testing.assert_allclose(confidence_formulas.entropy(logits, temperature), expected, atol=tolerance)
    two = shares.topk(2).values
    margin = two[:, 0] - two[:, 1]
    np.testing.assert_allclose(confidence_formulas.margin(logits, temperature), margin, atol=tolerance)


@pytest.mark.parametrize("criterion", CRITERIA)
@given(logits=arrays.arrays(np.float32, (6, 4, 3), elements=st.floats(-50, 50, width=32)))
def test_confidences_are_between_0_and_1(criterion, logits):
    policy = Policy((0.5,) * 3, (1.0,) * 4, criterion)
    confidences = criteria.confidence_at_every_exit(policy, logits, 3 * logits[..., 0])
    assert confidences.dtype == np.float32 and ((confidences >= 0) & (confidences <= 1)).all()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_non_finite_logits_have_no_confidence_and_affect_no_other_row(criterion):
    policy = Policy((0.0,) * 3, (1.0,) * 4, criterion)
    logits = np.random.default_rng(0).normal(0, 3, (5, 4, 2)).astype(np.float32)
    correctness_logits = np.random.default_rng(1).normal(0, 3, (5, 4)).astype(np.float32)
    expected = criteria.confidence_at_every_exit(policy, logits, correctness_logits)
    broken = logits.copy()
    broken[2, 1, 0] = np.nan
    confidences = criteria.confidence_at_every_exit(policy, broken, correctness_logits)
    assert np.isnan(confidences[2, 1]) and not criteria.may_leave(policy, 1, confidences[:, 1])[2]
    np.testing.assert_array_equal(np.delete(confidences, 2, axis=0), np.delete(expected, 2, axis=0))


def labels_as_logits(*exits: str) -> np.ndarray:
    """Returns the logits of one row, whose exits predict the labels a or b."""
    return np.array([[[1.0, 0.0] if label == "a" else [0.0, 1.0] for label in exits]], np.float32)


@pytest.mark.parametrize(
    ("exits", "agreeing"),
    [("aaaa", [1, 2, 3, 4]), ("abab", [1, 1, 1, 1]), ("abbb", [1, 1, 2, 3]), ("aabb", [1, 2, 1, 2])],
)
def test_patience_counts_equal_predictions(exits, agreeing):
    policy = Policy((0.5,) * 3, (1.0,) * 4, "patience")
    confidences = criteria.confidence_at_every_exit(policy, labels_as_logits(*exits))
    np.testing.assert_allclose(confidences[0], np.array(agreeing) / 4)


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_patience_and_confidence_needs_consecutive_confident_exits(patience):
    logits = np.random.default_rng(1).normal(0, 2, (50, 4, 3)).astype(np.float32)
    sure = criteria.confidence_at_every_exit(Policy((0.7,) * 3, (1.0,) * 4), logits) > 0.7
    policy = Policy((0.7,) * 3, (1.0,) * 4, "patience_and_confidence", patience)
    leaving = criteria.leaving_exit(policy, criteria.confidence_at_every_exit(policy, logits))
    for row in range(50):
        windows = [place for place in range(patience - 1, 3) if sure[row, place - patience + 1 : place + 1].all()]
        assert leaving[row] == (windows[0] if windows else 3)


def test_learned_confidence_is_the_sigmoid_of_the_correctness_logit():
    policy = Policy((0.5, 0.5), (0.2, 3.0, 2.0), "learned")
    logits = np.array([[[4.0, 0.0], [0.0, 1.0], [2.0, 0.0]]], np.float32)
    correctness_logits = np.array([[np.log(3.0), -100.0, 7.0]], np.float32)
    confidences = criteria.confidence_at_every_exit(policy, logits, correctness_logits)
    np.testing.assert_allclose(confidences[0, :2], [0.75, 0.0], atol=1e-6)
    np.testing.assert_allclose(confidences[0, 2], 1 / (1 + np.exp(-1.0)), atol=1e-6)  # the last has learned none
    with pytest.raises(ConfigError, match="learned"):
        criteria.confidence_at_every_exit(policy, logits)


@pytest.mark.parametrize(
    ("policy", "off"),
    [
        (Policy((1.0, 0.9), (1.0,) * 3), [True, False, False]),
        (Policy((1.0, 1.0), (1.0,) * 3, max_exit_index=1), [True, False, False]),  # every row leaves there
        (Policy((1.0, 0.9), (1.0,) * 3, "patience"), [False, False, False]),  # later exits look back
    ],
)
def test_exits_that_are_switched_off(policy, off):
    assert [criteria.is_switched_off(policy, place) for place in range(3)] == off


def test_every_remaining_row_leaves_at_max_exit_index():
    policy = Policy((0.9, 0.9, 0.9), (1.0,) * 4, max_exit_index=1)
    confidences = np.array([[0.95, 0.1, 0.1, 0.1], [0.1, np.nan, 0.1, 0.1]], np.float32)
    assert criteria.leaving_exit(policy, confidences).tolist() == [0, 1]
