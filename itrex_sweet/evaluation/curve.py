"""The speed–accuracy curve of a model, over one threshold for all exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import figure, percent, plain_table, score
from itrex_sweet.metrics import Metric, accuracy
from itrex_sweet.policy import Policy

DEFAULT_POINTS, DEFAULT_TIMED_POINTS = 20, 8


@dataclass(frozen=True)
class CurvePoint:
    """A point of the curve.

    Args:
        threshold: of every exit but the last, in [0, 1].
        metric: of the predictions.
        mean_layers: layers run per row.
        milliseconds: measured per row, without tokenization; `None` if not measured at this threshold.
        speedup: measured, relative to threshold 1; `None` if not measured.
    """

    threshold: float
    metric: float
    mean_layers: float
    milliseconds: float | None = None
    speedup: float | None = None


@dataclass(frozen=True)
class Curve:
    """The points of a model, by increasing threshold.

    Args:
        points: from threshold 0 to threshold 1.
        cheapest: layers run for a row that leaves at the first exit.
        depth: layers of the full model.
        rows: number of rows evaluated.
        metric_name: name of the metric.
    """

    points: tuple[CurvePoint, ...]
    cheapest: int
    depth: int
    rows: int
    metric_name: str = "accuracy"

    @property
    def area(self) -> float:
        """The area under the curve: the metric averaged over budgets of mean layers, from the first exit to full depth.

        Between two points the metric is interpolated linearly, which is attained by randomizing between the two
        thresholds; beyond the last point it is constant. Costs of a cascade above full depth are ignored, so that
        models with the same exits are comparable.
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
        """Returns plain JSON types."""
        return {**asdict(self), "points": [asdict(point) for point in self.points], "area": self.area}

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Returns headings and rows of the table."""
        headings = ["threshold", self.metric_name, "mean layers", "of depth", "ms/row", "speed-up"]
        return headings, [
            [
                figure(point.threshold, 4),
                score(point.metric, self.metric_name),
                figure(point.mean_layers),
                percent(point.mean_layers / self.depth, 0),
                figure(point.milliseconds),
                figure(point.speedup, 2, "×"),
            ]
            for point in self.points
        ]

    def table(self) -> str:
        """Returns the table as aligned text."""
        return plain_table(*self.cells())


def threshold_grid(outcomes: ExitOutcomes, policy: Policy, points: int = DEFAULT_POINTS) -> tuple[float, ...]:
    """Returns 0, 1 and quantiles of the confidences at the early exits.

    Each threshold lies in the widest gap between neighbouring confidences near its quantile, so that rounding errors,
    which differ between backends and batches, move no row across it.

    Args:
        points: maximum number of thresholds, 0 and 1 included.

    Returns:
        strictly increasing thresholds, from 0 to 1.
    """
    return thresholds_between(outcomes.confidences(policy)[:, :-1], points)


def thresholds_between(confidences: np.ndarray, points: int) -> tuple[float, ...]:
    """Returns thresholds as `threshold_grid`, for confidences of any shape; ignores values that are not finite."""
    values = np.unique(confidences[np.isfinite(confidences)].astype(np.float64))
    gaps = np.diff(values)
    if len(gaps) == 0 or points <= 2:
        return (0.0, 1.0)
    between = set()
    for part in np.array_split(np.arange(len(gaps)), min(points - 2, len(gaps))):
        widest = part[np.argmax(gaps[part])]
        between.add(float(values[widest] + gaps[widest] / 2))
    return (0.0, *sorted(value for value in between if 0.0 < value < 1.0), 1.0)


def timed_subset(thresholds: Sequence[float], mean_layers: Sequence[float], count: int) -> tuple[float, ...]:
    """Returns thresholds to measure: both ends, and others whose mean layers are about evenly spaced in the logarithm,
    since curves bend where few layers run.

    Args:
        thresholds: increasing.
        mean_layers: of each, above 0.
        count: maximum number of thresholds; 0 for none.
    """
    if count <= 0:
        return ()
    if count >= len(thresholds):
        return tuple(thresholds)
    layers = np.asarray(mean_layers)
    targets = np.geomspace(layers.min(), layers.max(), max(count, 2))
    nearest = {int(np.abs(layers - value).argmin()) for value in targets[1:-1]}
    return tuple(thresholds[index] for index in sorted(nearest | {0, len(thresholds) - 1}))


def make_curve(
    outcomes: ExitOutcomes,
    policy: Policy,
    thresholds: Sequence[float],
    *,
    metric: Metric = accuracy,
    metric_name: str = "accuracy",
    milliseconds: Mapping[float, float] | None = None,
) -> Curve:
    """Computes metric and mean layers at each threshold from the outputs of all exits.

    Args:
        outcomes: logits of every exit, and labels.
        policy: provides temperatures and criterion.
        thresholds: each for all exits.
        metric: of predictions and labels; higher is better.
        metric_name: for tables and plots.
        milliseconds: threshold → measured milliseconds per row; speed-ups are relative to threshold 1.
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
