"""The per-exit table: metric, exit rate and cost of each exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from itrex_sweet.association import association, one_hot
from itrex_sweet.evaluation.label_agreement import LabelAgreement, label_agreements
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import figure, percent, plain_table, score
from itrex_sweet.metrics import METRICS, Metric, accuracy
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import REGRESSION, SINGLE_LABEL


@dataclass(frozen=True)
class ExitReport:
    """Measurements of one exit.

    Args:
        exit: count of encoder layers, from 1.
        layers_run: layers run for a row that leaves here.
        metric: if all rows leave here.
        share_leaving: fraction of rows that leave here under the policy.
        metric_of_leaving: metric of these rows; `None` if there are none.
        mean_confidence: over rows with finite logits; `None` if there are none.
        milliseconds: measured per row if all rows leave here; `None` if not measured.
        other_metrics: the task's other metrics, if all rows leave here; for multi-label classification and regression.
        association: how strongly the outputs of the exit depend on the labels, see `itrex_sweet.association`.
    """

    exit: int
    layers_run: int
    metric: float
    share_leaving: float
    metric_of_leaving: float | None
    mean_confidence: float | None
    milliseconds: float | None = None
    other_metrics: Mapping[str, float] = field(default_factory=dict)
    association: float = 0.0


@dataclass(frozen=True)
class Report:
    """Measurements of all exits and of a policy.

    Args:
        exits: one report per exit.
        policy: that was evaluated.
        rows: number of rows.
        metric: under the policy.
        mean_layers: layers run per row under the policy.
        unanswered: rows with non-finite logits; they count as incorrect.
        agreement: fraction of rows with the same label or labels as at the last exit, or with a value within the
            policy's tolerance; `None` for a regression without a tolerance.
        metric_name: name of the metric.
        milliseconds: per row under the policy, without tokenization; `None` if not measured.
        other_metrics: the task's other metrics under the policy; for multi-label classification and regression.
        labels: per label, agreement of the policy with the last exit; empty for a regression.
        truth: per label, agreement of the policy with the labels of the rows; empty for a regression.
    """

    exits: tuple[ExitReport, ...]
    policy: Policy
    rows: int
    metric: float
    mean_layers: float
    unanswered: int
    agreement: float | None
    metric_name: str = "accuracy"
    milliseconds: float | None = None
    other_metrics: Mapping[str, float] = field(default_factory=dict)
    labels: tuple[LabelAgreement, ...] = ()
    truth: tuple[LabelAgreement, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        facts = {
            **asdict(self),
            "policy": self.policy.to_dict(),
            "exits": [asdict(exit_) for exit_ in self.exits],
            "labels": [each.to_dict() for each in self.labels],
            "truth": [each.to_dict() for each in self.truth],
        }
        for part in (facts, *facts["exits"]):
            if not part["other_metrics"]:
                del part["other_metrics"]
        return facts

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Returns headings and rows of the table; the last row is the policy."""
        others = list(self.other_metrics)
        headings = ["exit", "layers", self.metric_name, *others, "leave here", "of those", "confidence", "ms/row"]
        rows = [
            [
                str(exit_.exit),
                str(exit_.layers_run),
                score(exit_.metric, self.metric_name),
                *(score(exit_.other_metrics[name], name) for name in others),
                percent(exit_.share_leaving),
                score(exit_.metric_of_leaving, self.metric_name),
                figure(exit_.mean_confidence, 3),
                figure(exit_.milliseconds, 2),
            ]
            for exit_ in self.exits
        ]
        metric = score(self.metric, self.metric_name)
        total = ["policy", figure(self.mean_layers), metric]
        total += [score(self.other_metrics[name], name) for name in others]
        return headings, [*rows, [*total, percent(1.0), metric, "", figure(self.milliseconds)]]

    def table(self) -> str:
        """Returns the table as aligned text."""
        return plain_table(*self.cells())


def single_exit_policy(exit_index: int, policy: Policy) -> Policy:
    """Returns a policy under which every row leaves at the same exit.

    Args:
        exit_index: index of the exit.
        policy: provides temperatures and criterion.
    """
    return policy.with_threshold([1.0 if index < exit_index else 0.0 for index in range(len(policy.thresholds))])


def make_report(
    outcomes: ExitOutcomes,
    policy: Policy,
    *,
    metric: Metric = accuracy,
    metric_name: str = "accuracy",
    exit_milliseconds: Mapping[int, float] | None = None,
    milliseconds: float | None = None,
    label_names: Sequence[str] | None = None,
) -> Report:
    """Computes the table from the outputs of all exits.

    Args:
        outcomes: logits of every exit, and labels.
        policy: to evaluate.
        metric: of predictions and labels; higher is better.
        metric_name: for tables.
        exit_milliseconds: index of the exit → measured milliseconds per row if all rows leave there.
        milliseconds: measured per row under the policy.
        label_names: by id; by default `LABEL_0` and so on.
    """
    names = label_names or [f"LABEL_{place}" for place in range(outcomes.logits.shape[-1])]
    leaving, predictions, answers = outcomes.leaving(policy), outcomes.predictions(policy), outcomes.answers(policy)
    task, last = outcomes.task, outcomes.predictions(policy)[:, -1]
    others = [] if task.name == SINGLE_LABEL else [name for name in task.metrics if name != metric_name]

    def other_metrics(of: np.ndarray) -> dict[str, float]:
        return {name: METRICS[name](of, outcomes.labels) for name in others}

    agreement = None
    if task.name == SINGLE_LABEL:
        agreement = float((answers == last).mean())
    elif task.name != REGRESSION or policy.tolerance is not None:
        agreement = float(task.agree(answers, last, policy.tolerance).mean())
    confidences = outcomes.confidences(policy)
    targets = one_hot(task, outcomes.labels, outcomes.logits.shape[-1])
    exits = []
    for index, exit_ in enumerate(outcomes.exits):
        here, finite = leaving == index, np.isfinite(confidences[:, index])
        exits.append(
            ExitReport(
                exit=exit_,
                layers_run=outcomes.layers_run[index],
                metric=float(metric(predictions[:, index], outcomes.labels)),
                share_leaving=float(here.mean()),
                metric_of_leaving=float(metric(answers[here], outcomes.labels[here])) if here.any() else None,
                mean_confidence=float(confidences[finite, index].mean(dtype=np.float64)) if finite.any() else None,
                milliseconds=(exit_milliseconds or {}).get(index),
                other_metrics=other_metrics(predictions[:, index]),
                association=association(outcomes.logits[:, index], targets),
            )
        )
    return Report(
        exits=tuple(exits),
        policy=policy,
        rows=len(outcomes),
        metric=float(metric(answers, outcomes.labels)),
        mean_layers=outcomes.mean_layers(policy),
        unanswered=int((~np.isfinite(outcomes.logits[np.arange(len(outcomes)), leaving]).all(axis=-1)).sum()),
        agreement=agreement,
        metric_name=metric_name,
        milliseconds=milliseconds,
        other_metrics=other_metrics(answers),
        labels=label_agreements(task, answers, last, names),
        truth=label_agreements(task, answers, outcomes.labels, names),
    )
