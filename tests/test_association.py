"""Tests of the association of outputs and labels, with a brute-force permutation test as reference."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from itrex_sweet.association import (
    MIN_ASSOCIATION,
    MIN_OTHERS,
    MIN_SEPARATION,
    association,
    has_learned,
    one_hot,
    separation,
)
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
    assert np.mean(np.array(shuffled) > MIN_ASSOCIATION) <= 0.05 and np.std(shuffled) == pytest.approx(1, abs=0.15)


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


def imbalanced(rows, labels, majority, rng):
    """Returns labels of which one is frequent, as targets."""
    shares = np.full(labels, (1 - majority) / (labels - 1))
    shares[0] = majority
    return np.eye(labels)[rng.choice(labels, rows, p=shares)]


def logits_of_an_exit(targets, distance, rng):
    """Returns logits of independent labels, whose means differ by a distance in standard deviations."""
    return targets * distance + rng.normal(size=targets.shape)


@pytest.mark.parametrize("labels", [2, 5, 20])
@pytest.mark.parametrize("majority", [0.94, 0.97, 0.99])
@pytest.mark.parametrize("rows", [100, 1000])
def test_useful_exits_stay_and_constant_ones_do_not(labels, majority, rows):
    """At a distance of 0.75, such an exit may answer 42 to 54 % of the rows where one that learned nothing may answer
    17 %, with a sixth of the rows of rare labels wrong."""
    dropped, runs = {0.0: 0, 0.75: 0, 1.2: 0}, 60
    enough = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        targets = imbalanced(rows, labels, majority, rng)
        others = rows - int(targets.sum(axis=0).max())
        enough += others >= MIN_OTHERS
        for distance in dropped:
            found = has_learned(association(logits_of_an_exit(targets, distance, rng), targets), others)
            dropped[distance] += found is False
        constant = np.log(targets.mean(axis=0) + 0.01) * np.ones((rows, 1))
        is_judged = others > 0
        assert (has_learned(association(constant, targets), others) is False) == is_judged, "by few rows too"
    assert dropped[0.75] <= 0.1 * runs and dropped[1.2] <= 0.04 * runs
    assert dropped[0.0] >= 0.9 * enough


def test_too_few_other_rows_do_not_judge():
    assert has_learned(1.9, MIN_OTHERS - 1) is None and has_learned(-5.0, 0) is None
    assert has_learned(1.9, MIN_OTHERS) is False and has_learned(0.0, 3) is False
    assert has_learned(2.1, 0) is True


@pytest.mark.parametrize("labels", [2, 5, 20])
@pytest.mark.parametrize("majority", [0.3, 0.94, 0.99])
def test_separation_is_the_distance_for_any_number_of_rows_and_frequency(labels, majority):
    for distance, rows in ((0.0, 20_000), (1.2, 20_000), (1.2, 80_000)):
        rng = np.random.default_rng(3)
        targets = imbalanced(rows, labels, majority, rng)
        found = separation(association(logits_of_an_exit(targets, distance, rng), targets), targets)
        assert found == pytest.approx(distance, abs=0.3) and (found > MIN_SEPARATION) == (distance > 0)
    assert separation(3.0, np.ones((5, 2))) == 0.0
