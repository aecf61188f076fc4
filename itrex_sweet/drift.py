"""Comparison of the answers to live traffic with those to the calibration rows: exits, labels and scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MIN_ROWS = 200
STABLE, WATCH, RECALIBRATE = VERDICTS = ("stable", "watch", "recalibrate")
_WATCH, _RECALIBRATE = 0.1, 0.25  # population stability index, the usual thresholds (Siddiqi 2006)
_NORMAL_QUANTILE = 3.09  # of 99.9 %


@dataclass(frozen=True)
class Drift:
    """Differences between the answers to live traffic and to the calibration rows.

    Args:
        rows: number of answers compared.
        exits, labels, scores: population stability index of the exits at which rows leave, of the labels (sets of
            labels in multi-label classification; 0 in regression) and of their scores: 0 if the distributions are
            equal. The score of a row is the probability of its label, the least probability of its labels (0 without a
            label), or its value.
        ks: Kolmogorov–Smirnov statistic of the scores, at the stored bins.
        ks_p_value: probability of a statistic at least as large without drift.
        verdict: `"stable"`, `"watch"` or `"recalibrate"`.
        why: the distributions that changed; empty if none did.
    """

    rows: int
    exits: float
    labels: float
    scores: float
    ks: float
    ks_p_value: float
    verdict: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class AnswerCounts:
    """Numbers of answers by label (or set of labels), by exit and by bin of scores.

    Args:
        labels, exits, scores: (labels,), (exits,) and (bins,) numbers; each sums to the number of answers.
    """

    labels: np.ndarray
    exits: np.ndarray
    scores: np.ndarray

    def __add__(self, other: AnswerCounts) -> AnswerCounts:
        return AnswerCounts(self.labels + other.labels, self.exits + other.exits, self.scores + other.scores)

    def __sub__(self, other: AnswerCounts) -> AnswerCounts:
        return AnswerCounts(self.labels - other.labels, self.exits - other.exits, self.scores - other.scores)

    @property
    def rows(self) -> int:
        """Number of answers."""
        return int(self.exits.sum())


class Reference:
    """Distribution of the answers to the calibration rows, as an artifact stores it.

    Args:
        summary: `traffic` of an artifact's calibration, see `calibration.drift.traffic_summary`.

    Attributes:
        exits: counts of layers.
        sets: sets of label ids that are counted apart, in multi-label classification; else empty.
        counts: of the calibration rows.
    """

    def __init__(self, summary: Mapping[str, Any]):
        rows = np.asarray(summary["rows"], dtype=np.float64)
        self.exits: tuple[int, ...] = tuple(summary["exits"])
        self.sets: list[list[int]] = summary.get("sets", [])
        self.counts = AnswerCounts(rows.sum(axis=(1, 2)), rows.sum(axis=(0, 2)), rows.sum(axis=(0, 1)))
        self._edges = np.asarray(summary["score_edges"], dtype=np.float64)

    def count(self, labels: np.ndarray, exit_index: np.ndarray, scores: np.ndarray) -> AnswerCounts:
        """Counts answers.

        Args:
            labels: (rows,) int64: label ids; numbers of sets, as of `number_sets`; 0 in regression.
            exit_index: (rows,) int64, from 0.
            scores: (rows,), as in `Drift`.
        """
        bins = np.searchsorted(self._edges, scores)
        parts = zip(
            (labels, exit_index, bins), (self.counts.labels, self.counts.exits, self.counts.scores), strict=True
        )
        return AnswerCounts(*(np.bincount(values, minlength=len(reference)) for values, reference in parts))

    def compare(self, counts: AnswerCounts) -> Drift:
        """Compares answers with those to the calibration rows.

        An index is reported as changed if it exceeds the usual threshold and the 99.9 % quantile of its distribution
        without drift (Yurdakul 2018).
        """
        indices, changes, verdict = {}, [], STABLE
        for name in ("exits", "labels", "scores"):
            index, noise = _population_stability(getattr(self.counts, name), getattr(counts, name))
            indices[name] = round(index, 4)
            if index > max(_WATCH, noise):
                changes.append(f"{name} changed (index {index:.2f})")
                verdict = RECALIBRATE if index > _RECALIBRATE or verdict == RECALIBRATE else WATCH
        ks, p_value = _kolmogorov_smirnov(self.counts.scores, counts.scores)
        return Drift(
            counts.rows, **indices, ks=round(ks, 4), ks_p_value=p_value, verdict=verdict, why="; ".join(changes)
        )


def number_sets(rows: Iterable[Sequence[int]], sets: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the index in `sets` of each row's set of label ids, or `len(sets)`, (rows,) int64."""
    indices = {tuple(sorted(each)): index for index, each in enumerate(sets)}
    return np.array([indices.get(tuple(sorted(row)), len(sets)) for row in rows], dtype=np.int64)


def least_scores(scores: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Returns the least probability of the labels that are on, 0 without a label: (rows,).

    Args:
        scores, decisions: (rows, labels), of multi-label classification.
    """
    lowest = np.where(decisions == 1, scores, np.inf).min(axis=1)
    return np.where(np.isfinite(lowest), lowest, 0.0)


def _population_stability(reference: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Returns the population stability index of two distributions and its 99.9 % quantile without drift.

    Half a row is added to each cell.
    """
    old, new = reference + 0.5, counts + 0.5
    sizes = old.sum(), new.sum()
    old, new = old / sizes[0], new / sizes[1]
    freedom = max(len(old) - 1, 1)
    # Chi-squared quantile by Wilson and Hilferty 1931.
    quantile = freedom * (1 - 2 / (9 * freedom) + _NORMAL_QUANTILE * math.sqrt(2 / (9 * freedom))) ** 3
    return float(((new - old) * np.log(new / old)).sum()), quantile * (1 / sizes[0] + 1 / sizes[1])


def _kolmogorov_smirnov(reference: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Returns the statistic of two binned distributions and its asymptotic p-value, an upper bound because of bins."""
    distance = float(np.abs(np.cumsum(reference) / reference.sum() - np.cumsum(counts) / counts.sum()).max())
    size = reference.sum() * counts.sum() / (reference.sum() + counts.sum())
    scaled = (math.sqrt(size) + 0.12 + 0.11 / math.sqrt(size)) * distance
    if scaled < 0.2:
        return distance, 1.0
    series = sum((-1) ** (term - 1) * math.exp(-2 * term**2 * scaled**2) for term in range(1, 101))
    return distance, float(min(max(2 * series, 0.0), 1.0))
