"""The per-exit table: how good each exit is, who leaves there, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from itrex_sweet.config import Policy
from itrex_sweet.evaluation.metrics import NO_ANSWER, Metric, accuracy
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import figure, percent, plain_table


@dataclass(frozen=True)
class ExitReport:
    """One exit.

    Args:
        exit: count of encoder layers, from 1.
        layers_run: layers that a row has cost when it leaves here.
        metric: the metric if every row answered here.
        share_leaving: share of rows that leave here under the policy.
        metric_of_leaving: the metric of those alone; `None` if there are none.
        mean_confidence: over all rows whose logits here are finite; `None` if there are none.
        milliseconds: per row, measured with every row leaving here; `None` if not measured.
    """

    exit: int
    layers_run: int
    metric: float
    share_leaving: float
    metric_of_leaving: float | None
    mean_confidence: float | None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Report:
    """All exits, and the whole under one policy.

    Args:
        exits: one report per exit.
        policy: decides who leaves where.
        rows: evaluated.
        metric: of the answers under the policy.
        mean_layers: layers run per row under the policy.
        unanswered: rows whose answer is not finite; they count as wrong.
        agreement: share of rows that get the label of the last exit.
        metric_name: of what `metric` is.
        milliseconds: per row under the policy, without tokenization; `None` if not measured.
    """

    exits: tuple[ExitReport, ...]
    policy: Policy
    rows: int
    metric: float
    mean_layers: float
    unanswered: int
    agreement: float
    metric_name: str = "accuracy"
    milliseconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            **asdict(self),
            "policy": self.policy.to_dict(),
            "exits": [asdict(exit_) for exit_ in self.exits],
        }

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows of the table; the last row is the whole under the policy."""
        headings = ["exit", "layers", self.metric_name, "leave here", "of those", "confidence", "ms/row"]
        rows = [
            [
                str(exit_.exit),
                str(exit_.layers_run),
                percent(exit_.metric),
                percent(exit_.share_leaving),
                percent(exit_.metric_of_leaving),
                figure(exit_.mean_confidence, 3),
                figure(exit_.milliseconds, 2),
            ]
            for exit_ in self.exits
        ]
        whole = ["policy", figure(self.mean_layers), percent(self.metric), percent(1.0), percent(self.metric)]
        return headings, [*rows, [*whole, "", figure(self.milliseconds)]]

    def table(self) -> str:
        """The table as aligned text."""
        return plain_table(*self.cells())


def single_exit_policy(exit_index: int, policy: Policy) -> Policy:
    """A policy under which every row leaves at one exit: nobody may before, everybody there.

    Args:
        exit_index: place of the exit among the exits, from 0.
        policy: whose temperatures and criterion are kept.
    """
    return policy.with_threshold([1.0 if place < exit_index else 0.0 for place in range(len(policy.thresholds))])


def make_report(
    outcomes: ExitOutcomes,
    policy: Policy,
    *,
    metric: Metric = accuracy,
    metric_name: str = "accuracy",
    exit_milliseconds: Mapping[int, float] | None = None,
    milliseconds: float | None = None,
) -> Report:
    """Works out the table from what every exit said.

    Args:
        outcomes: logits of every exit, and labels.
        policy: decides who leaves where.
        metric: of predictions and labels; more is better.
        metric_name: for tables.
        exit_milliseconds: place of the exit, from 0 → measured milliseconds per row, everyone leaving there.
        milliseconds: per row, measured under the policy.
    """
    leaving, predictions, answers = outcomes.leaving(policy), outcomes.predictions(), outcomes.answers(policy)
    confidences = outcomes.confidences(policy)
    exits = []
    for place, exit_ in enumerate(outcomes.exits):
        here, finite = leaving == place, np.isfinite(confidences[:, place])
        exits.append(
            ExitReport(
                exit=exit_,
                layers_run=outcomes.layers_run[place],
                metric=float(metric(predictions[:, place], outcomes.labels)),
                share_leaving=float(here.mean()),
                metric_of_leaving=float(metric(answers[here], outcomes.labels[here])) if here.any() else None,
                mean_confidence=float(confidences[finite, place].mean(dtype=np.float64)) if finite.any() else None,
                milliseconds=(exit_milliseconds or {}).get(place),
            )
        )
    return Report(
        exits=tuple(exits),
        policy=policy,
        rows=len(outcomes),
        metric=float(metric(answers, outcomes.labels)),
        mean_layers=outcomes.mean_layers(policy),
        unanswered=int((answers == NO_ANSWER).sum()),
        agreement=float((answers == predictions[:, -1]).mean()),
        metric_name=metric_name,
        milliseconds=milliseconds,
    )
