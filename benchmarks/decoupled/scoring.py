"""Scores of exits, in the form of the paper's runs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from paper import plan
from paper.run import area, curve

from decoupled.variants import EXITS, REPORTED
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.metrics import METRICS

TARGET = 0.99  # of the plain model's score
DEPTH = 6
AMONG = "exits among every layer's"
PROBE = 0.1  # of a full layer's time, for a row of some 25 tokens


def figures_of(
    logits: dict[str, dict[str, np.ndarray]], task: str, exits_of: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Computes, per variant and split: score of every exit, curve, area, and the lowest share of the layers at 99 % of
    the score of the last exit, which is the plain model's. Variants with exits after every layer are also scored with
    the paper's exits only.

    Args:
        logits: split → variant → (rows, exits, labels), and "labels".
        task: name of the task.
        exits_of: variant → its exits, without the last.
    """
    variants = {}
    for name, exits in exits_of.items():
        for shown, selected in {name: EXITS, f"{name}, every layer": exits}.items():
            if shown != name and exits == EXITS:
                continue
            places = [*(exits.index(exit_) for exit_ in selected), len(exits)]
            variants[shown] = {
                split: _figures(
                    ExitOutcomes(each[name][:, places], each["labels"], (*selected, DEPTH), (*selected, DEPTH)),
                    plan.METRIC.get(task, "accuracy"),
                )
                for split, each in logits.items()
            }
    for name, figures in variants.items():
        for split in figures.keys() - ({"validation"} if name in REPORTED else ()):
            del figures[split]["curve"]  # the reports do not use it
    metric = plan.METRIC.get(task, "accuracy")
    return {
        "metric": metric,
        "variants": variants,
        AMONG: {
            name: {"pool": subsets_of(logits["pool"][name], logits["pool"]["labels"], metric)}
            for name, exits in exits_of.items()
            if len(exits) == DEPTH - 1
        },
    }


def _figures(outcomes: ExitOutcomes, metric: str) -> dict[str, Any]:
    points = curve(outcomes, "max_probability", metric)
    predicted = outcomes.predictions()
    score = METRICS[metric]
    scores = [score(predicted[:, place], outcomes.labels) for place in range(len(outcomes.exits))]
    return {
        "exits": list(outcomes.exits),
        "score": [round(each, 5) for each in scores],
        "agreement": [round(float(share), 5) for share in (predicted == predicted[:, -1:]).mean(0)],
        "area": round(area(points, outcomes.layers_run, outcomes.exits[-1]), 5),
        "share at 99 %": cheapest_share(points, outcomes.layers_run, TARGET * scores[-1]),
        "curve": points,
    }


def subsets_of(logits: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, dict[str, float | None]]:
    """Computes, for every subset of exits after every layer: the area by layers, and the lowest cost at 99 % of the
    last exit's score, as a share of the layers and as a share of the time of the full model.

    A probe counts as `PROBE` of a layer: a row that leaves at exit k has run k - 1 layers and every probe up to there,
    and the full model without exits five layers and one probe.

    Args:
        logits: (rows, exits, labels), including the last exit.
        labels: (rows,).
        metric: name of the metric.
    """
    subsets = {}
    for count in range(1, DEPTH):
        for exits in itertools.combinations(range(1, DEPTH), count):
            exits = (*exits, DEPTH)
            outcomes = ExitOutcomes(logits[:, [exit_ - 1 for exit_ in exits]], labels, exits, exits)
            points = curve(outcomes, "max_probability", metric)
            minimum = TARGET * METRICS[metric](outcomes.predictions()[:, -1], labels)
            work = [exit_ - 1 + PROBE * probes for probes, exit_ in enumerate(exits, start=1)]
            cost = cheapest_share(points, tuple(work), minimum)
            subsets["/".join(map(str, exits))] = {
                "area": round(area(points, exits, DEPTH), 5),
                "share at 99 %": cheapest_share(points, exits, minimum),
                "time at 99 %": None if cost is None else round(cost * work[-1] / (DEPTH - 1 + PROBE), 4),
            }
    return subsets


def cheapest_share(points: list[list[float]], costs: tuple[int, ...], minimum: float) -> float | None:
    """Returns the lowest cost, relative to full depth, of a threshold with at least this score, or `None`."""
    table = np.array(points)
    shares = table[:, :-1] @ np.array(costs, dtype=float) / costs[-1]
    return min(
        (round(float(share), 4) for share, score in zip(shares, table[:, -1], strict=True) if score >= minimum),
        default=None,
    )
