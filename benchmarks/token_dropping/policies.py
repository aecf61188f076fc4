"""Chooses a policy, with or without a schedule, for a budget of accuracy: by the observed loss, or certified."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.calibration.bounds import certified
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.guarantees import PairedPredictions, guarantee_for
from itrex_sweet.calibration.selection import TUNING_SHARE

_QUANTILES = np.linspace(0.0, 1.0, 10)


@dataclass(frozen=True)
class Outcomes:
    """Rows under one schedule.

    Args:
        confidences: (rows, exits), the largest probability.
        predictions: (rows, exits).
        costs: of the rows.
    """

    confidences: np.ndarray
    predictions: np.ndarray
    costs: RowCosts

    @classmethod
    def of(cls, logits: np.ndarray, costs: RowCosts) -> Outcomes:
        """Computes confidences and predictions from logits (rows, exits, labels)."""
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return cls((powers / powers.sum(-1, keepdims=True)).max(-1), logits.argmax(-1), costs)

    def select(self, rows: np.ndarray) -> Outcomes:
        """Returns some rows."""
        return Outcomes(self.confidences[rows], self.predictions[rows], self.costs.select(rows))

    def under(self, thresholds: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Returns predictions and costs (rows,) with a threshold per exit but the last; one of 1 saves the probe."""
        confident = self.confidences[:, :-1] > np.array(thresholds)
        leaving = np.where(confident.any(1), confident.argmax(1), len(thresholds))
        probes = np.concatenate([[0], np.cumsum(np.array(thresholds) < 1.0)])[leaving]
        rows = np.arange(len(leaving))
        return self.predictions[rows, leaving], self.costs.through[rows, leaving] + self.costs.probe * probes


@dataclass(frozen=True)
class Choice:
    """A schedule, by name, and thresholds."""

    schedule: str
    thresholds: tuple[float, ...]


def sequence(found: dict[str, Outcomes], labels: np.ndarray, reference: np.ndarray) -> list[Choice]:
    """Returns choices from conservative to aggressive: none is both cheaper and less lossy on these rows than another.

    The loss of accuracy against the reference is taken as its mean plus two standard errors.

    Args:
        found: schedule → outcomes.
        labels: (rows,).
        reference: (rows,), answers of the model at full depth with all tokens.
    """
    points = []
    right = (reference == labels).astype(np.int64)
    for name, outcomes in found.items():
        pools = [
            np.unique(np.append(np.quantile(column, _QUANTILES[:-1]), 1.0)) for column in outcomes.confidences.T[:-1]
        ]
        for thresholds in itertools.product(*pools):
            predictions, costs = outcomes.under(thresholds)
            loss = right - (predictions == labels)
            pessimistic = loss.mean() + 2 * np.sqrt((loss**2).mean() / len(loss))
            points.append((costs.mean(), pessimistic, Choice(name, tuple(map(float, thresholds)))))
    points.sort(key=lambda point: point[:2])
    best, frontier = np.inf, []
    for _, loss, choice in points:
        if loss < best - 1e-12:
            best = loss
            frontier.append(choice)
    return frontier[::-1]


def certified_choices(
    found: dict[str, Outcomes],
    labels: np.ndarray,
    reference: np.ndarray,
    epsilons: Sequence[float],
    seed: int = 0,
    delta: float = 0.05,
) -> dict[float, Choice | None]:
    """Returns, for each ε, the cheapest choice whose loss of accuracy is certified to be at most ε, by fixed-sequence
    testing on rows that did not order the choices; `None` if none is. The seed draws these rows.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    tuning, testing = np.split(order, [round(TUNING_SHARE * len(order))])
    choices = sequence({name: each.select(tuning) for name, each in found.items()}, labels[tuning], reference[tuning])
    held_out = {name: each.select(testing) for name, each in found.items()}
    pairs = [
        PairedPredictions(held_out[each.schedule].under(each.thresholds)[0], reference[testing], labels[testing])
        for each in choices
    ]
    chosen: dict[float, Choice | None] = {}
    for epsilon in epsilons:
        guarantee = guarantee_for(Budget(max_accuracy_drop=epsilon, confidence=1 - delta))
        count = certified([guarantee.p_value(pair) for pair in pairs], delta)
        chosen[epsilon] = choices[count - 1] if count else None
    return chosen


def observed_choices(
    found: dict[str, Outcomes], labels: np.ndarray, reference: np.ndarray, epsilons: Sequence[float], seed: int = 0
) -> dict[float, Choice | None]:
    """Returns, for each ε, the cheapest choice whose observed loss of accuracy is at most ε; `None` if none is."""
    right, measured = (reference == labels).mean(), []
    for choice in sequence(found, labels, reference):
        predictions, costs = found[choice.schedule].under(choice.thresholds)
        measured.append((costs.mean(), right - (predictions == labels).mean(), choice))
    chosen = {}
    for epsilon in epsilons:
        within = [each for each in measured if each[1] <= epsilon]
        chosen[epsilon] = min(within, key=lambda each: each[0])[2] if within else None
    return chosen


def figures(
    choice: Choice | None, found: dict[str, Outcomes], labels: np.ndarray, reference: np.ndarray
) -> dict[str, Any]:
    """Returns accuracy, agreement with the reference and mean cost of a choice; of full depth with all tokens if it is
    `None`, from the first outcomes.
    """
    first = next(iter(found.values()))
    if choice is None:
        choice = Choice(next(iter(found)), (1.0,) * (first.predictions.shape[1] - 1))
    predictions, costs = found[choice.schedule].under(choice.thresholds)
    return {
        "schedule": choice.schedule,
        "accuracy": round(float((predictions == labels).mean()), 5),
        "agreement": round(float((predictions == reference).mean()), 5),
        "cost": round(float(costs.mean() / first.costs.through[:, -1].mean()), 4),
    }


def mean_figures(figures_: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the mean of the figures of several choices, and the share of the choices with each schedule."""
    names = [each["schedule"] for each in figures_]
    keys = ("accuracy", "agreement", "cost")
    return {
        "schedules": {name: round(names.count(name) / len(names), 2) for name in dict.fromkeys(names)},
        **{key: round(float(np.mean([each[key] for each in figures_])), 5) for key in keys},
    }
