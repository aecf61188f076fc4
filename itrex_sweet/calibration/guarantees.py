"""Statistical guarantees of a budget: one hypothesis test per kind of drop, on rows that did not choose the policy."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from itrex_sweet.calibration.bounds import binomial_p_value
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.calibration.paired_test import exact_paired_p_value
from itrex_sweet.metrics import CONFUSION_METRICS, METRICS, Metric
from itrex_sweet.tasks import SINGLE_LABEL, TASKS, Task

_BOOTSTRAP_SAMPLES = 4000
_BOOTSTRAP_SAMPLES_OF_CALLABLE = 400
_MAX_ROWS_NEEDED = 10**6
_GAMMA_SHARE = 1 / 500  # of δ: error of the confidence interval of the nuisance parameter


@dataclass(frozen=True)
class PairedPredictions:
    """Predictions of a policy and of the model that it is compared with, for the same rows.

    Args:
        policy: (rows,) int64; for other tasks as `Task.decisions` returns them.
        reference: of the compared model: the same model at full depth, or another one.
        labels: the same for the labels, or `None`.
        task: decides which predictions agree.
        tolerance: difference up to which values agree, in regression.
    """

    policy: np.ndarray
    reference: np.ndarray
    labels: np.ndarray | None
    task: Task = TASKS[SINGLE_LABEL]
    tolerance: float | None = None


class Guarantee(ABC):
    """An upper bound on the drop of a policy that holds with a given probability.

    Args:
        epsilon: largest drop allowed, a fraction.
        delta: largest probability that the drop exceeds it.

    Attributes:
        name: of the test, as recorded in the artifact.
    """

    name: str

    def __init__(self, epsilon: float, delta: float):
        self.epsilon, self.delta = epsilon, delta

    @abstractmethod
    def p_value(self, predictions: PairedPredictions) -> float:
        """Returns the p-value of the null hypothesis that the policy drops more than ε."""

    @abstractmethod
    def drop(self, predictions: PairedPredictions) -> float:
        """Returns the observed drop of the policy, a fraction."""

    def rows_needed(self, predictions: PairedPredictions) -> int | None:
        """Returns how many rows like these would certify the policy; `None` if none would, or if it is unknown."""
        return None

    def min_rows(self) -> int:
        """Returns the number of rows below which not even a policy without losses could be certified."""
        return 1


class MeanLossGuarantee(Guarantee):
    """A guarantee of a mean over rows, accuracy or agreement; valid for any distribution and number of rows.

    Accuracy has the exact unconditional test of paired losses, agreement the exact binomial test. They have the most
    power of the tests compared in docs/benchmarks/calibration.md; the number of rows must be fixed beforehand.
    """

    def __init__(self, epsilon: float, delta: float, of_accuracy: bool):
        super().__init__(epsilon, delta)
        self._p_value = binomial_p_value
        test = "exact binomial"
        if of_accuracy:
            self._p_value = functools.partial(exact_paired_p_value, gamma=_GAMMA_SHARE * delta)
            test = "exact unconditional test of the paired loss"
        self.name = f"fixed-sequence testing, {test}"

    def p_value(self, predictions: PairedPredictions) -> float:
        return self.p_value_of(loss_counts(predictions))

    def p_value_of(self, counts: LossCounts) -> float:
        """Returns the p-value of counts of lost and won rows."""
        return self._p_value(counts, self.epsilon)

    def drop(self, predictions: PairedPredictions) -> float:
        return loss_counts(predictions).mean_loss

    def rows_needed(self, predictions: PairedPredictions) -> int | None:
        return self._rows_for(loss_counts(predictions))

    def min_rows(self) -> int:
        return self._rows_for(LossCounts(0, 0, 1)) or 1

    def _rows_for(self, counts: LossCounts) -> int | None:
        def is_enough(rows: int) -> bool:
            scale = rows / counts.rows
            scaled = LossCounts(round(counts.lost * scale), round(counts.won * scale), rows)
            return self.p_value_of(scaled) <= self.delta

        high = max(counts.rows, 1)
        while not is_enough(high):
            high *= 2
            if high > _MAX_ROWS_NEEDED:
                return None
        low = high // 2
        while high - low > max(1, high // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if is_enough(middle) else (middle, high)
        return high


class MetricGuarantee(Guarantee):
    """A guarantee of a metric that is not a mean over rows, tested with a paired bootstrap.

    The p-value is the fraction of bootstrap resamples whose drop exceeds ε, with both predictions of a row resampled
    together (Efron and Tibshirani 1993, chapter 16). It is asymptotic, not a finite-sample bound.
    """

    def __init__(self, epsilon: float, delta: float, metric: str | Metric):
        super().__init__(epsilon, delta)
        self._metric = metric
        metric_name = metric if isinstance(metric, str) else getattr(metric, "__name__", "the given metric")
        self.name = f"fixed-sequence testing, paired bootstrap of {metric_name} (approximate)"

    def p_value(self, predictions: PairedPredictions) -> float:
        if self._metric in CONFUSION_METRICS:
            drops = self._resample_confusions(predictions)
        else:
            drops = self._resample_rows(predictions)
        return float((1 + np.count_nonzero(drops > self.epsilon)) / (1 + len(drops)))

    def drop(self, predictions: PairedPredictions) -> float:
        metric = METRICS[self._metric] if isinstance(self._metric, str) else self._metric
        labels = predictions.labels
        return float(metric(predictions.reference, labels) - metric(predictions.policy, labels))

    def min_rows(self) -> int:
        return 200  # below, a bootstrap of F1 or Matthews correlation is unreliable

    def _resample_confusions(self, predictions: PairedPredictions) -> np.ndarray:
        """Returns the drop of each resample, drawn as counts of (label, reference prediction, policy prediction)."""
        triples = np.stack([predictions.labels, predictions.reference, predictions.policy])
        cells, counts = np.unique(triples, axis=1, return_counts=True)
        random = np.random.default_rng(0)
        drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=_BOOTSTRAP_SAMPLES)
        size = int(cells.max()) + 1
        from_confusion = CONFUSION_METRICS[self._metric]

        def metric(answers: np.ndarray) -> np.ndarray:
            confusions = np.zeros((_BOOTSTRAP_SAMPLES, size, size + 1))
            for cell, (label, answer) in enumerate(zip(cells[0], answers, strict=True)):
                confusions[:, label, answer] += drawn[:, cell]  # -1, no answer, is the last column
            return from_confusion(confusions)

        return metric(cells[1]) - metric(cells[2])

    def _resample_rows(self, predictions: PairedPredictions) -> np.ndarray:
        """Returns the drop of each resample of the rows."""
        random, count = np.random.default_rng(0), len(predictions.labels)
        drops = []
        for _ in range(_BOOTSTRAP_SAMPLES_OF_CALLABLE):
            rows = random.integers(0, count, count)
            resample = dataclasses.replace(
                predictions,
                policy=predictions.policy[rows],
                reference=predictions.reference[rows],
                labels=predictions.labels[rows],
            )
            drops.append(self.drop(resample))
        return np.array(drops)


def guarantee_for(budget: Budget) -> Guarantee | None:
    """Returns the guarantee that a budget asks for; `None` if it names no drop."""
    if budget.max_metric_drop is not None:
        return MetricGuarantee(budget.max_metric_drop, budget.delta, budget.metric)
    if budget.epsilon is None:
        return None
    return MeanLossGuarantee(budget.epsilon, budget.delta, budget.max_accuracy_drop is not None)


def exit_losses(
    predictions: np.ndarray,
    labels: np.ndarray | None,
    reference: np.ndarray | None = None,
    task: Task | None = None,
    tolerance: float | None = None,
) -> np.ndarray:
    """Returns what each row loses by leaving at each exit, in accuracy, or without labels in agreement.

    Accuracy and agreement compare the sets of labels in multi-label classification, and values within the tolerance in
    regression.

    Args:
        predictions: (rows, exits) predicted labels, or (rows, exits, labels).
        labels: (rows,) or (rows, labels), or `None`.
        reference: predictions of the compared model, shaped as labels; those of the last exit if absent.
        task: single-label classification by default.
        tolerance: of a regression.

    Returns:
        (rows, exits) int64 in -1, 0, 1.
    """
    reference = predictions[:, -1] if reference is None else reference
    if task is None or task.name == SINGLE_LABEL:
        if labels is None:
            return (predictions != reference[:, None]).astype(np.int64)
        return (reference == labels)[:, None].astype(np.int64) - (predictions == labels[:, None]).astype(np.int64)
    if labels is None:
        return (~task.agree(predictions, reference[:, None], tolerance)).astype(np.int64)
    of_reference = task.agree(reference, labels, tolerance)[:, None].astype(np.int64)
    return of_reference - task.agree(predictions, labels[:, None], tolerance).astype(np.int64)


def loss_counts(predictions: PairedPredictions) -> LossCounts:
    """Counts the rows that the policy loses and wins against the compared model."""
    losses = exit_losses(
        predictions.policy[:, None], predictions.labels, predictions.reference, predictions.task, predictions.tolerance
    )
    return LossCounts.of(losses[:, 0])
