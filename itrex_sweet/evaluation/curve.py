"""The speed–accuracy curve: one threshold for all exits, from all leaving at once to nobody leaving early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itrex_sweet.config import Policy
from itrex_sweet.evaluation.metrics import Metric, accuracy
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import figure, percent, plain_table

DEFAULT_POINTS, DEFAULT_TIMED_POINTS = 20, 8


@dataclass(frozen=True)
class CurvePoint:
    """One threshold.

    Args:
        threshold: of every exit but the last, in [0, 1].
        metric: of the answers.
        mean_layers: layers run per row.
        milliseconds: per row, measured, without tokenization; `None` if not measured at this threshold.
        speedup: how many times faster on the clock than at threshold 1; `None` if not measured.
    """

    threshold: float
    metric: float
    mean_layers: float
    milliseconds: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class Curve:
    """A model's points, by rising threshold.

    Args:
        points: from threshold 0 to threshold 1.
        cheapest: layers that a row has cost when it leaves at the first exit.
        depth: layers of the full model.
        rows: evaluated.
        metric_name: of what `metric` is.
    """

    points: tuple[CurvePoint, ...]
    cheapest: int
    depth: int
    rows: int
    metric_name: str = "accuracy"

    @property
    def area(self) -> float:
        """The metric, averaged over all budgets of mean layers from the first exit's to the full depth.

        Between two points the metric is taken as linear, which sending a share of the rows by either
        threshold attains; beyond the last, as constant. What a cascade spends above the full depth is left
        out, so that models of the same exits compare.
        """
        by_layers: dict[float, list[float]] = {}
        for point in self.points:
            by_layers.setdefault(point.mean_layers, []).append(point.metric)
        layers = np.array(sorted(by_layers))
        metric = np.array([np.mean(by_layers[value]) for value in layers])
        if self.depth <= self.cheapest:
            return float(np.interp(self.depth, layers, metric))
        inside = layers[(layers > self.cheapest) & (layers < self.depth)]
        budgets = np.concatenate([[self.cheapest], inside, [self.depth]])
        heights = np.interp(budgets, layers, metric)
        return float((np.diff(budgets) * (heights[1:] + heights[:-1]) / 2).sum() / (self.depth - self.cheapest))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "points": [asdict(point) for point in self.points], "area": self.area}

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of the table."""
        headings = ["threshold", self.metric_name, "mean layers", "of depth", "ms/row", "speed-up"]
        return headings, [
            [
                figure(point.threshold, 4),
                percent(point.metric),
                figure(point.mean_layers),
                percent(point.mean_layers / self.depth, 0),
                figure(point.milliseconds),
                figure(point.speedup, 2, "×"),
            ]
            for point in self.points
        ]

    def table(self) -> str:
        """The table as aligned text."""
        return plain_table(*self.cells())


def threshold_grid(outcomes: ExitOutcomes, policy: Policy, points: int = DEFAULT_POINTS) -> tuple[float, ...]:
    """Thresholds worth trying: 0, 1 and quantiles of the confidences seen before the last exit.

    Each lies in the widest gap between neighbouring confidences near its quantile, so that rounding in the
    last bit, which differs between backends and batches, moves no row across it.

    Args:
        points: thresholds at most, 0 and 1 included.

    Returns:
        strictly rising, from 0 to 1.
    """
    return thresholds_between(outcomes.confidences(policy)[:, :-1], points)


def thresholds_between(confidences: np.ndarray, points: int) -> tuple[float, ...]:
    """As `threshold_grid`, of confidences of any shape; those that are not finite are left out."""
    seen = np.unique(confidences[np.isfinite(confidences)].astype(np.float64))
    gaps = np.diff(seen)
    if len(gaps) == 0 or points <= 2:
        return (0.0, 1.0)
    between = set()
    for part in np.array_split(np.arange(len(gaps)), min(points - 2, len(gaps))):
        widest = part[np.argmax(gaps[part])]
        between.add(float(seen[widest] + gaps[widest] / 2))
    return (0.0, *sorted(value for value in between if 0.0 < value < 1.0), 1.0)


def timed_subset(thresholds: Sequence[float], mean_layers: Sequence[float], count: int) -> tuple[float, ...]:
    """Thresholds to put on the clock: the ends, and between them those whose mean layers lie evenly apart.

    Args:
        thresholds: rising.
        mean_layers: of each.
        count: thresholds at most; 0 for none.
    """
    if count <= 0:
        return ()
    if count >= len(thresholds):
        return tuple(thresholds)
    layers = np.asarray(mean_layers)
    wanted = np.linspace(layers.min(), layers.max(), max(count, 2))
    nearest = {int(np.abs(layers - value).argmin()) for value in wanted[1:-1]}
    return tuple(thresholds[place] for place in sorted(nearest | {0, len(thresholds) - 1}))


def make_curve(
    outcomes: ExitOutcomes,
    policy: Policy,
    thresholds: Sequence[float],
    *,
    metric: Metric = accuracy,
    metric_name: str = "accuracy",
    milliseconds: Mapping[float, float] | None = None,
) -> Curve:
    """Works out metric and mean layers at each threshold from what every exit said.

    Args:
        outcomes: logits of every exit, and labels.
        policy: whose temperatures and criterion are kept.
        thresholds: each for all exits at once.
        metric: of predictions and labels; more is better.
        metric_name: for tables and plots.
        milliseconds: threshold → measured milliseconds per row; speed-ups are relative to that at 1.
    """
    measured = milliseconds or {}
    full = measured.get(1.0)
    points = []
    for threshold in sorted(thresholds):
        tried, taken = policy.with_threshold(float(threshold)), measured.get(threshold)
        points.append(
            CurvePoint(
                threshold=float(threshold),
                metric=float(metric(outcomes.answers(tried), outcomes.labels)),
                mean_layers=outcomes.mean_layers(tried),
                milliseconds=taken,
                speedup=None if taken is None or full is None else full / taken,
            )
        )
    return Curve(tuple(points), outcomes.layers_run[0], outcomes.exits[-1], len(outcomes), metric_name)
