"""What budgets promise, and the tests behind it."""

import numpy as np
import pytest

from itrex_sweet.calibration.bounds import binomial_p_value, paired_p_value
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.guarantees import (
    MetricGuarantee,
    PairedPredictions,
    exit_losses,
    guarantee_for,
    loss_counts,
)
from itrex_sweet.evaluation.metrics import METRICS


def drawn(rows: int, seed: int, full: float = 0.85, early: float = 0.8, labels: int = 2) -> PairedPredictions:
    """A full model that is right in a share of rows, and answers that are right in another."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, labels, rows)
    answers = [np.where(random.uniform(size=rows) < share, truth, (truth + 1) % labels) for share in (early, full)]
    return PairedPredictions(*answers, truth)


def test_each_budget_has_its_test():
    said = drawn(500, 0)
    accuracy = guarantee_for(Budget(max_accuracy_drop=0.1))
    assert accuracy.p_value(said) == paired_p_value(loss_counts(said), 0.1) and "betting" in accuracy.name
    unlabelled = PairedPredictions(said.answers, said.full, None)
    agreement = guarantee_for(Budget(max_agreement_drop=0.3))
    assert agreement.p_value(unlabelled) == binomial_p_value(loss_counts(unlabelled), 0.3)
    assert loss_counts(unlabelled).lost == (said.answers != said.full).sum() and loss_counts(unlabelled).won == 0
    assert guarantee_for(Budget(max_layers=3)) is None
    metric = guarantee_for(Budget(max_metric_drop=0.1, metric="f1", confidence=0.8))
    assert isinstance(metric, MetricGuarantee) and metric.delta == pytest.approx(0.2)


def test_losses_of_labels_and_of_agreement():
    said, labels = np.array([[0, 1, 1], [1, 1, 0], [2, 2, 2], [0, 0, 1]]), np.array([1, 1, 2, 2])
    assert exit_losses(said, labels).tolist() == [[1, 0, 0], [-1, -1, 0], [0, 0, 0], [0, 0, 0]]
    assert exit_losses(said, None).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("metric", ["f1", "matthews"])
@pytest.mark.parametrize("labels", [2, 3])
def test_resampled_confusions_are_resampled_rows(metric, labels):
    said = drawn(300, 1, labels=labels)
    said.answers[:9] = -1  # rows without an answer
    promise = MetricGuarantee(0.05, 0.1, metric)
    by_cells, by_rows = promise._resampled_confusions(said), []
    random, of = np.random.default_rng(5), METRICS[metric]
    for _ in range(1500):
        rows = random.integers(0, 300, 300)
        by_rows.append(of(said.full[rows], said.labels[rows]) - of(said.answers[rows], said.labels[rows]))
    assert by_cells.mean() == pytest.approx(np.mean(by_rows), abs=0.005)
    assert by_cells.std() == pytest.approx(np.std(by_rows), rel=0.1)
    assert promise.drop(said) == pytest.approx(of(said.full, said.labels) - of(said.answers, said.labels))


def test_a_function_of_ones_own_is_resampled_by_rows():
    def share_right(predictions, labels):
        return float((predictions == labels).mean())

    said = drawn(400, 2)
    drop = share_right(said.full, said.labels) - share_right(said.answers, said.labels)
    own = MetricGuarantee(drop, 0.1, share_right)
    assert 0.3 < own.p_value(said) < 0.7 and "share_right" in own.name
    assert MetricGuarantee(drop + 0.2, 0.1, share_right).p_value(said) < 0.01
    assert MetricGuarantee(drop - 0.2, 0.1, share_right).p_value(said) > 0.99


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_the_bootstrap_errs_about_as_often_as_it_says(metric):
    """Where the true drop is just what may not be exceeded, of 300 draws about one in ten may be certified."""
    population, of = drawn(200_000, 3), METRICS[metric]
    epsilon = of(population.full, population.labels) - of(population.answers, population.labels)
    promise, random, certified = MetricGuarantee(epsilon, 0.1, metric), np.random.default_rng(0), 0
    for _ in range(300):
        rows = random.integers(0, len(population.labels), 1500)
        part = PairedPredictions(population.answers[rows], population.full[rows], population.labels[rows])
        certified += promise.p_value(part) <= promise.delta
    assert certified / 300 < 0.1 + 3 * (0.1 * 0.9 / 300) ** 0.5
    assert certified > 0
