"""Figures of what exits said, the same as the paper's runs have."""

from __future__ import annotations

from typing import Any

import numpy as np
from paper import plan
from paper.run import area, curve

from decoupled.variants import EXITS
from itrex_sweet.evaluation.metrics import METRICS
from itrex_sweet.evaluation.outcomes import ExitOutcomes

LEAST = 0.99  # of the plain model's score
DEPTH = 6


def figures_of(
    said: dict[str, dict[str, np.ndarray]], task: str, exits_of: dict[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Per variant and split: score of every exit, curve, area, and the cheapest share of the layers at 99 % of the last
    exit's score, which is the plain model's. Variants with exits after every layer also count with the paper's alone.

    Args:
        said: split → variant → (rows, exits, labels), and "labels".
        exits_of: variant → its exits, without the last.
    """
    variants = {}
    for name, exits in exits_of.items():
        for shown, kept in {name: EXITS, f"{name}, every layer": exits}.items():
            if shown != name and exits == EXITS:
                continue
            places = [*(exits.index(exit_) for exit_ in kept), len(exits)]
            variants[shown] = {
                split: _figures(
                    ExitOutcomes(each[name][:, places], each["labels"], (*kept, DEPTH), (*kept, DEPTH)),
                    plan.METRIC.get(task, "accuracy"),
                )
                for split, each in said.items()
            }
    return {"metric": plan.METRIC.get(task, "accuracy"), "variants": variants}


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
        "share at 99 %": cheapest_share(points, outcomes.layers_run, LEAST * scores[-1]),
        "curve": points,
    }


def cheapest_share(points: list[list[float]], costs: tuple[int, ...], least: float) -> float | None:
    """Share of the depth of the cheapest threshold that scores so much; `None` if none does."""
    table = np.array(points)
    shares = table[:, :-1] @ np.array(costs, dtype=float) / costs[-1]
    return min(
        (round(float(share), 4) for share, score in zip(shares, table[:, -1], strict=True) if score >= least),
        default=None,
    )
