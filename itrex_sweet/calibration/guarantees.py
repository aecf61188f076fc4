"""What a budget promises of a policy, and how rows that had no part in choosing it test that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from itrex_sweet.calibration.bounds import LossCounts, binomial_p_value, paired_p_value
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.evaluation.metrics import CONFUSION_METRICS, METRICS, Metric

_RESAMPLES = 4000
_RESAMPLES_OF_OWN = 400  # of a metric that is the caller's own function
_MOST_NEEDED = 10**7


@dataclass(frozen=True)
class PairedPredictions:
    """Answers to some rows.

    Args:
        answers: (rows,) int64 of a policy.
        full: (rows,) int64 of the model that is compared with: the same at full depth, or another.
        labels: (rows,) int64, or `None`.
    """

    answers: np.ndarray
    full: np.ndarray
    labels: np.ndarray | None


class Guarantee(ABC):
    """A drop that is not exceeded.

    Args:
        epsilon: the drop, a share.
        delta: how often, at most, the promise may fail.
    """

    name: str

    def __init__(self, epsilon: float, delta: float):
        self.epsilon, self.delta = epsilon, delta

    @abstractmethod
    def p_value(self, said: PairedPredictions) -> float:
        """Of the hypothesis that the policy drops more than promised."""

    @abstractmethod
    def drop(self, said: PairedPredictions) -> float:
        """What the policy dropped on these rows, a share."""

    def rows_needed(self, said: PairedPredictions) -> int | None:
        """Rows like these that would certify the policy; `None` if no number would, or it cannot be told."""
        return None

    def min_rows(self) -> int:
        """Rows without which not even a policy that loses nothing could be certified."""
        return 1


class MeanLossGuarantee(Guarantee):
    """Of a mean over rows: it holds for any distribution of the rows and any number of them."""

    def __init__(self, epsilon: float, delta: float, of_accuracy: bool):
        super().__init__(epsilon, delta)
        self._bound = paired_p_value if of_accuracy else binomial_p_value
        test = "betting on the paired loss" if of_accuracy else "exact binomial"
        self.name = f"fixed-sequence testing, {test}"

    def p_value(self, said: PairedPredictions) -> float:
        return self._bound(loss_counts(said), self.epsilon)

    def drop(self, said: PairedPredictions) -> float:
        return loss_counts(said).mean_loss

    def rows_needed(self, said: PairedPredictions) -> int | None:
        return self._rows_for(loss_counts(said))

    def min_rows(self) -> int:
        return self._rows_for(LossCounts(0, 0, 1)) or 1

    def _rows_for(self, counts: LossCounts) -> int | None:
        def enough(rows: int) -> bool:
            scale = rows / counts.rows
            scaled = LossCounts(round(counts.lost * scale), round(counts.won * scale), rows)
            return self._bound(scaled, self.epsilon) <= self.delta

        high = max(counts.rows, 1)
        while not enough(high):
            high *= 2
            if high > _MOST_NEEDED:
                return None
        low = high // 2
        while high - low > max(1, high // 100):
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high


class MetricGuarantee(Guarantee):
    """Of a metric that is no mean over rows: the share of bootstrap resamples of the rows, pairs of answers kept
    together, whose drop exceeds ε (Efron and Tibshirani 1993, chapter 16). Approximate: it tends to hold as rows grow
    many, and is no finite-sample bound.
    """

    def __init__(self, epsilon: float, delta: float, metric: str | Metric):
        super().__init__(epsilon, delta)
        self._metric = metric
        named = metric if isinstance(metric, str) else getattr(metric, "__name__", "the given metric")
        self.name = f"fixed-sequence testing, paired bootstrap of {named} (approximate)"

    def p_value(self, said: PairedPredictions) -> float:
        if isinstance(self._metric, str):
            drops = self._resampled_confusions(said)
        else:
            drops = self._resampled_rows(said)
        return float((1 + np.count_nonzero(drops > self.epsilon)) / (1 + len(drops)))

    def drop(self, said: PairedPredictions) -> float:
        metric = METRICS[self._metric] if isinstance(self._metric, str) else self._metric
        return float(metric(said.full, said.labels) - metric(said.answers, said.labels))

    def min_rows(self) -> int:
        return 200  # below that a bootstrap of F1 or Matthews says little

    def _resampled_confusions(self, said: PairedPredictions) -> np.ndarray:
        """A resample's confusions depend on how often it draws each (label, full answer, answer) alone."""
        cells, counts = np.unique(np.stack([said.labels, said.full, said.answers]), axis=1, return_counts=True)
        random = np.random.default_rng(0)
        drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=_RESAMPLES)
        size = int(cells.max()) + 1
        of = CONFUSION_METRICS[self._metric]

        def metric(answers: np.ndarray) -> np.ndarray:
            tables = np.zeros((_RESAMPLES, size, size + 1))
            for cell, (label, answer) in enumerate(zip(cells[0], answers, strict=True)):
                tables[:, label, answer] += drawn[:, cell]  # -1, no answer, is the last column
            return of(tables)

        return metric(cells[1]) - metric(cells[2])

    def _resampled_rows(self, said: PairedPredictions) -> np.ndarray:
        random, count = np.random.default_rng(0), len(said.labels)
        drops = []
        for _ in range(_RESAMPLES_OF_OWN):
            rows = random.integers(0, count, count)
            drops.append(self.drop(PairedPredictions(said.answers[rows], said.full[rows], said.labels[rows])))
        return np.array(drops)


def guarantee_for(budget: Budget) -> Guarantee | None:
    """What a budget promises; `None` where it promises nothing."""
    if budget.max_metric_drop is not None:
        return MetricGuarantee(budget.max_metric_drop, budget.delta, budget.metric)
    if budget.epsilon is None:
        return None
    return MeanLossGuarantee(budget.epsilon, budget.delta, budget.max_accuracy_drop is not None)


def exit_losses(said: np.ndarray, labels: np.ndarray | None, full: np.ndarray | None = None) -> np.ndarray:
    """(rows, exits) in -1, 0, 1: what a row loses at each exit, in accuracy or, without labels, in agreement.

    Args:
        said: (rows, exits) labels given.
        labels: (rows,), or `None`.
        full: (rows,) labels that the model gives that is compared with; those of the last exit if absent.
    """
    full = said[:, -1] if full is None else full
    if labels is None:
        return (said != full[:, None]).astype(np.int64)
    return (full == labels)[:, None].astype(np.int64) - (said == labels[:, None]).astype(np.int64)


def loss_counts(said: PairedPredictions) -> LossCounts:
    """Rows that the policy lost and won against the model that it is compared with."""
    return LossCounts.of(exit_losses(said.answers[:, None], said.labels, said.full)[:, 0])
