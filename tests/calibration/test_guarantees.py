"""Hypothesis tests of the kinds of budgets."""

import numpy as np
import pytest

from itrex_sweet.calibration.bounds import binomial_p_value
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.guarantees import (
    MetricGuarantee,
    PairedPredictions,
    exit_losses,
    guarantee_for,
    loss_counts,
)
from itrex_sweet.calibration.paired_test import exact_paired_p_value
from itrex_sweet.metrics import METRICS


def draw_predictions(
    rows: int, seed: int, full: float = 0.85, early: float = 0.8, labels: int = 2
) -> PairedPredictions:
    """Returns predictions of a policy and a full model that are correct with the given probabilities."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, labels, rows)
    answers = [np.where(random.uniform(size=rows) < share, truth, (truth + 1) % labels) for share in (early, full)]
    return PairedPredictions(*answers, truth)


def test_kind_of_budget_selects_the_hypothesis_test():
    pairs = draw_predictions(500, 0)
    accuracy = guarantee_for(Budget(max_accuracy_drop=0.1))
    assert accuracy.p_value(pairs) == exact_paired_p_value(loss_counts(pairs), 0.1, 1e-4)
    assert "exact unconditional" in accuracy.name
    unlabelled = PairedPredictions(pairs.policy, pairs.reference, None)
    agreement = guarantee_for(Budget(max_agreement_drop=0.3))
    assert agreement.p_value(unlabelled) == binomial_p_value(loss_counts(unlabelled), 0.3)
    assert loss_counts(unlabelled).lost == (pairs.policy != pairs.reference).sum() and loss_counts(unlabelled).won == 0
    assert guarantee_for(Budget(max_layers=3)) is None
    metric = guarantee_for(Budget(max_metric_drop=0.1, metric="f1", confidence=0.8))
    assert isinstance(metric, MetricGuarantee) and metric.delta == pytest.approx(0.2)


def test_exit_losses_with_and_without_labels():
    pairs, labels = np.array([[0, 1, 1], [1, 1, 0], [2, 2, 2], [0, 0, 1]]), np.array([1, 1, 2, 2])
    assert exit_losses(pairs, labels).tolist() == [[1, 0, 0], [-1, -1, 0], [0, 0, 0], [0, 0, 0]]
    assert exit_losses(pairs, None).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("metric", ["f1", "matthews"])
@pytest.mark.parametrize("labels", [2, 3])
def test_resampling_confusions_matches_resampling_rows(metric, labels):
    pairs = draw_predictions(300, 1, labels=labels)
    pairs.policy[:9] = -1  # rows without an answer
    guarantee = MetricGuarantee(0.05, 0.1, metric)
    by_cells, by_rows = guarantee._resample_confusions(pairs), []
    random, of = np.random.default_rng(5), METRICS[metric]
    for _ in range(1500):
        rows = random.integers(0, 300, 300)
        by_rows.append(of(pairs.reference[rows], pairs.labels[rows]) - of(pairs.policy[rows], pairs.labels[rows]))
    assert by_cells.mean() == pytest.approx(np.mean(by_rows), abs=0.005)
    assert by_cells.std() == pytest.approx(np.std(by_rows), rel=0.1)
    assert guarantee.drop(pairs) == pytest.approx(of(pairs.reference, pairs.labels) - of(pairs.policy, pairs.labels))


def test_callable_metric_is_resampled_by_rows():
    def fraction_correct(answers, labels):
        return float((answers == labels).mean())

    pairs = draw_predictions(400, 2)
    drop = fraction_correct(pairs.reference, pairs.labels) - fraction_correct(pairs.policy, pairs.labels)
    own = MetricGuarantee(drop, 0.1, fraction_correct)
    assert 0.3 < own.p_value(pairs) < 0.7 and "fraction_correct" in own.name
    assert MetricGuarantee(drop + 0.2, 0.1, fraction_correct).p_value(pairs) < 0.01
    assert MetricGuarantee(drop - 0.2, 0.1, fraction_correct).p_value(pairs) > 0.99


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_bootstrap_type_one_error_is_near_delta(metric):
    """At the boundary of the null hypothesis, about one in ten of 300 draws may be certified."""
    population, of = draw_predictions(200_000, 3), METRICS[metric]
    epsilon = of(population.reference, population.labels) - of(population.policy, population.labels)
    guarantee, random, certified = MetricGuarantee(epsilon, 0.1, metric), np.random.default_rng(0), 0
    for _ in range(300):
        rows = random.integers(0, len(population.labels), 1500)
        part = PairedPredictions(population.policy[rows], population.reference[rows], population.labels[rows])
        certified += guarantee.p_value(part) <= guarantee.delta
    assert certified / 300 < 0.1 + 3 * (0.1 * 0.9 / 300) ** 0.5
    assert certified > 0
