"""Confidence and who may leave."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from itrex_sweet import criteria
from itrex_sweet.config import Policy

logits_strategy = arrays.arrays(np.float32, (5, 3), elements=st.floats(-50, 50, width=32))


@given(logits_strategy, st.floats(0.05, 20))
def test_probabilities_are_a_softmax_over_the_temperature(logits, temperature):
    expected = torch.softmax(torch.from_numpy(logits).double() / temperature, dim=-1)
    np.testing.assert_allclose(criteria.probabilities(logits, temperature), expected, atol=1e-5)
    np.testing.assert_allclose(criteria.max_probability(logits, temperature), expected.amax(-1), atol=1e-5)


def test_certainty_does_not_meet_a_threshold_of_one():
    policy = Policy((1.0,), (1.0, 1.0))
    confidences = criteria.confidence(policy, 0, np.array([[1000.0, -1000.0]], np.float32))
    assert confidences[0] == 1.0
    assert not criteria.may_leave(policy, 0, confidences)[0]
    assert criteria.may_leave(policy, 1, confidences)[0]  # the last exit answers whoever reaches it


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_broken_logits_stay_to_the_end(broken):
    policy = Policy((0.0,), (1.0, 1.0))
    logits = np.array([[broken, 0.0], [0.3, 0.2]], np.float32)
    if broken == -float("inf"):
        logits[0] = broken
    leaving = criteria.may_leave(policy, 0, criteria.confidence(policy, 0, logits))
    assert leaving.tolist() == [False, True]


def test_each_exit_has_its_own_temperature_and_threshold():
    policy = Policy((0.6, 0.9), (1.0, 10.0, 1.0))
    logits = np.array([[1.0, 0.0]], np.float32)
    assert criteria.may_leave(policy, 0, criteria.confidence(policy, 0, logits)).all()
    assert criteria.confidence(policy, 1, logits)[0] == pytest.approx(1 / (1 + np.exp(-0.1)), abs=1e-6)
    assert not criteria.may_leave(policy, 1, criteria.confidence(policy, 1, logits)).any()
