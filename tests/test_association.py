"""Tests of the association of outputs and labels, with a brute-force permutation test as reference."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from itrex_sweet.association import MIN_ASSOCIATION, association, one_hot
from itrex_sweet.metrics import pearson
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, TASKS

SMALL = st.tuples(st.integers(2, 5), st.integers(1, 3))
NUMBERS = st.integers(-8, 8)


@given(SMALL.flatmap(lambda shape: st.tuples(*[arrays(np.float64, shape, elements=NUMBERS)] * 2)))
def test_it_is_the_statistic_of_all_permutations(pair):
    logits, targets = pair
    sums = [(logits * targets[list(order)]).sum() for order in itertools.permutations(range(len(logits)))]
    spread = np.std(sums)
    expected = ((logits * targets).sum() - np.mean(sums)) / spread if spread > 1e-9 else 0.0
    assert association(logits, targets) == pytest.approx(expected, abs=1e-6)


@given(
    arrays(np.float64, (12, 3), elements=NUMBERS),
    st.lists(st.integers(0, 2), min_size=12, max_size=12),
    st.floats(0.1, 9.0),
    arrays(np.float64, (12, 1), elements=NUMBERS),
    arrays(np.float64, 3, elements=NUMBERS),
)
def test_offsets_and_scale_do_not_change_it(logits, labels, scale, of_rows, of_labels):
    targets = one_hot(TASKS[SINGLE_LABEL], np.array(labels), 3)
    changed = scale * logits + of_rows + of_labels
    assert association(changed, targets) == pytest.approx(association(logits, targets), abs=1e-6)


def test_regression_is_the_correlation():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=200)
    values = (0.3 * labels + rng.normal(size=200))[:, None]
    targets = one_hot(TASKS[REGRESSION], labels, 1)
    assert association(values, targets) == pytest.approx(pearson(values[:, 0], labels) * np.sqrt(199))


def test_a_useful_exit_of_imbalanced_data_has_one():
    """The exit always predicts the frequent label; the rare one is among the half that it is unsure of."""
    rng = np.random.default_rng(1)
    labels = np.array([0] * 940 + [1] * 60)
    unsure = np.concatenate([rng.random(940) < 0.5, np.ones(60, dtype=bool)])
    logits = np.stack([np.where(unsure, 1.0, 5.0), np.zeros(1000)], axis=1)
    targets = one_hot(TASKS[SINGLE_LABEL], labels, 2)
    assert (logits.argmax(axis=1) == 0).all() and association(logits, targets) > 2 * MIN_ASSOCIATION
    shuffled = [association(logits[rng.permutation(1000)], targets) for _ in range(300)]
    assert np.mean(np.array(shuffled) > MIN_ASSOCIATION) <= 0.01 and np.std(shuffled) == pytest.approx(1, abs=0.15)


def test_multi_label_with_rare_labels():
    rng = np.random.default_rng(2)
    labels = (rng.random((600, 5)) < 0.05).astype(np.int64)
    targets = one_hot(TASKS[MULTI_LABEL], labels, 5)
    logits = -4.0 + rng.normal(size=(600, 5))
    assert association(logits, targets) < MIN_ASSOCIATION < association(logits + labels, targets)


def test_constant_or_missing_outputs_have_none():
    targets = one_hot(TASKS[SINGLE_LABEL], np.array([0, 1] * 50), 2)
    constant = np.tile([3.0, -1.0], (100, 1))
    assert association(constant, targets) == 0.0 == association(np.zeros((100, 2)), targets)
    assert association(constant * (1 + 1e-9 * targets), targets) == 0.0, "differences of rounding"
    assert association(np.full((100, 2), np.nan), targets) == 0.0
    assert association(targets, targets[:1].repeat(100, axis=0)) == 0.0
    assert association(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0
    partly = np.where(np.arange(100)[:, None] < 50, targets, np.inf)
    assert association(partly, targets) == pytest.approx(np.sqrt(49))
