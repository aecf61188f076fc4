"""Evaluates models on labelled texts: one pass through all exits, simulated policies, and timing."""

from __future__ import annotations

import datetime
import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact import library_versions
from itrex_sweet.defaults import DEFAULT_REPEATS, DEFAULT_TIMED_ROWS
from itrex_sweet.errors import ConfigError
from itrex_sweet.evaluation.curve import (
    DEFAULT_POINTS,
    DEFAULT_TIMED_POINTS,
    Curve,
    make_curve,
    threshold_grid,
    timed_subset,
)
from itrex_sweet.evaluation.guarantee_check import GuaranteeCheck, check_guarantee
from itrex_sweet.evaluation.label_agreement import warn_of_lost_labels
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.reference import Reference
from itrex_sweet.evaluation.report import Report, make_report, single_exit_policy
from itrex_sweet.evaluation.seen_rows import NOT_HELD_OUT, SeenRows, seen_rows
from itrex_sweet.evaluation.timing import milliseconds_per_row, rows_within, sample_rows
from itrex_sweet.metrics import METRICS, Metric
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.machine import Machine
from itrex_sweet.tasks import Task
from itrex_sweet.tokenization.inputs import listed, plain_texts

if TYPE_CHECKING:
    from itrex_sweet.data import Text
    from itrex_sweet.modeling import SweetModelForSequenceClassification
    from itrex_sweet.runtime.ragged import TokenBatch

_MIN_TIMED_ROWS, _TIMED_SECONDS = 64, 15.0  # unless the caller names a number of rows
_SHARE_OF_FULL_DEPTH = 0.5  # time of the timed policies, on average

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model on labelled texts.

    Args:
        name: of the model, for tables and plots.
        report: per exit, and under the model's policy.
        curve: over thresholds.
        timing: timed rows, repeats and batch size; empty if nothing was timed.
        machine: that was measured.
        versions: of this package and the libraries it uses.
        created: time in ISO 8601.
        seen: role, such as training → fraction of the rows that the model has seen in it. Scores on them are not
            held-out scores.
        guarantee: check of the stored policy's guarantee; `None` without one, or if another policy was evaluated.
        reference: name and metric of the reference model; `None` without one.
    """

    name: str
    report: Report
    curve: Curve
    timing: Mapping[str, int]
    machine: Machine
    versions: Mapping[str, str]
    created: str
    seen: Mapping[str, float] = field(default_factory=dict)
    guarantee: GuaranteeCheck | None = None
    reference: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "name": self.name,
            "report": self.report.to_dict(),
            "curve": self.curve.to_dict(),
            "timing": dict(self.timing),
            "machine": self.machine.to_dict(),
            "versions": dict(self.versions),
            "created": self.created,
            "seen": dict(self.seen),
            "guarantee": None if self.guarantee is None else self.guarantee.to_dict(),
            "reference": None if self.reference is None else dict(self.reference),
        }


def evaluate(
    model: SweetModelForSequenceClassification,
    texts: Sequence[Text],
    labels: Sequence[Any],
    name: str = "model",
    **options: Any,
) -> Evaluation:
    """Evaluates one model; see `evaluate_models` for arguments and errors."""
    return evaluate_models({name: model}, texts, labels, **options)[0]


def evaluate_models(
    models: Mapping[str, SweetModelForSequenceClassification],
    texts: Sequence[Text],
    labels: Sequence[Any],
    *,
    metric: Metric | None = None,
    metric_name: str | None = None,
    points: int = DEFAULT_POINTS,
    timed_points: int = DEFAULT_TIMED_POINTS,
    timed_rows: int | None = None,
    repeats: int = DEFAULT_REPEATS,
    max_length: int | None = None,
    reference: Reference | None = None,
    source: str = "the evaluation data",
) -> list[Evaluation]:
    """Evaluates models on the same texts, with interleaved timing.

    Args:
        models: early-exit models and cascades, by name.
        texts: texts or pairs of texts.
        labels: one label id from 0 per text; for multi-label classification a vector of ones and zeros, for regression
            a number.
        metric: of predictions and labels, both as `Task.decisions`; higher is better; a prediction of -1 (NaN) means no
            answer. By default the task's first: accuracy, exact match or Pearson correlation.
        metric_name: for tables and plots.
        points: maximum number of thresholds of the curve.
        timed_points: maximum number of these that are timed.
        timed_rows: number of random rows for timing; 0 disables timing. By default at most 256, and fewer, but at least
            64, if the models are so slow that timing would take longer than some seconds.
        repeats: timed runs per point; their median is reported.
        max_length: maximum number of tokens per row.
        reference: model that the guarantee compares with (`evaluation.reference.open_reference`).
        source: name of the data, for messages.

    Returns:
        one evaluation per model, in order. Milliseconds are wall-clock time per row in the executor, without
        tokenization, in batches of the model's batch size.

    Raises:
        InputError: invalid texts or labels.
        ConfigError: an argument out of range, or a reference with other labels.
    """
    timed_rows = None if timed_rows is None else whole_number("timed_rows", timed_rows, 0)
    repeats = whole_number("repeats", repeats, 1)
    points, timed_points = whole_number("points", points, 2), whole_number("timed_points", timed_points, 1)
    if max_length is not None:
        max_length = whole_number("max_length", max_length, 1)
    task = _common_task(models)
    if metric is None:
        metric_name = metric_name or task.default_metric
        metric = METRICS[metric_name]
    if not callable(metric):
        raise ConfigError(f"metric={metric!r}: must be a function of predictions and labels.")
    metric_name = metric_name or getattr(metric, "__name__", "metric")
    if metric_name in METRICS and metric is METRICS[metric_name] and metric_name not in task.metrics:
        raise ConfigError(f"metric={metric_name!r} does not fit {task.name}: choose one of {', '.join(task.metrics)}.")
    texts = listed(texts)
    outcomes: dict[str, ExitOutcomes] = {}
    seen_before: dict[str, SeenRows] = {}
    grids: dict[str, tuple[float, ...]] = {}
    batches: dict[str, TokenBatch] = {}
    to_time: dict[tuple[str, Policy], float] = {}  # with the seconds per row at full depth
    for name, model in models.items():
        batch = batches[name] = model.read(texts, max_length)
        start = time.perf_counter()
        seen = outcomes[name] = ExitOutcomes.observe(model, batch, labels)
        seconds_per_row = (time.perf_counter() - start) / max(len(batch), 1)
        seen_before[name] = _find_seen_rows(name, model, batch, texts, source)
        grid = grids[name] = threshold_grid(seen, model.policy, points)
        # Equivalent policies, such as threshold 1 and the last exit alone, are timed once.
        for policy in _timed_policies(seen, model.policy, grid, timed_points):
            to_time[name, policy] = seconds_per_row
    reference_answers = _reference_answers(models, texts, reference, task)
    if timed_rows is None:
        seconds = _SHARE_OF_FULL_DEPTH * sum(to_time.values()) * (1 + repeats)
        timed_rows = rows_within(_TIMED_SECONDS, seconds, (_MIN_TIMED_ROWS, DEFAULT_TIMED_ROWS))
    rows = min(timed_rows, len(texts))
    measured = _timed(models, batches, list(to_time), rows, repeats) if rows else {}

    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    machine, versions = Machine.here(), library_versions()
    evaluations = []
    for name, model in models.items():
        described = dict(metric=metric, metric_name=metric_name)
        of_model = {policy: milliseconds for (key, policy), milliseconds in measured.items() if key == name}
        at_exits = {
            place: of_model.get(single_exit_policy(place, model.policy)) for place in range(len(outcomes[name].exits))
        }
        report = make_report(
            outcomes[name],
            model.policy,
            exit_milliseconds={place: value for place, value in at_exits.items() if value is not None},
            milliseconds=of_model.get(model.policy),
            label_names=model.artifact.label_names,
            **described,
        )
        warn_of_lost_labels(name, report.labels)
        at_thresholds = {value: of_model.get(model.policy.with_threshold(value)) for value in grids[name]}
        timings = {threshold: value for threshold, value in at_thresholds.items() if value is not None}
        curve = make_curve(outcomes[name], model.policy, grids[name], milliseconds=timings, **described)
        timing = dict(rows=rows, repeats=repeats, batch_size=model.executor.batch_size) if measured else {}
        seen, answers = seen_before[name], reference_answers.get(model.artifact.label_names)
        guarantee = None
        if model.policy == model.artifact.policy:
            guarantee = check_guarantee(model.artifact, outcomes[name], seen, metric_name, reference, answers)
        reference_record = None
        if reference is not None and answers is not None:
            reference_record = {**reference.to_dict(), "metric": float(metric(answers, outcomes[name].labels))}
        evaluations.append(
            Evaluation(
                name, report, curve, timing, machine, versions, created, dict(seen.shares), guarantee, reference_record
            )
        )
    return evaluations


def _common_task(models: Mapping[str, SweetModelForSequenceClassification]) -> Task:
    """Returns the task of all models.

    Raises:
        ConfigError: they have different tasks.
    """
    tasks = {name: model.artifact.task for name, model in models.items()}
    names = {task.name for task in tasks.values()}
    if len(names) > 1:
        listed = "; ".join(f"{name}: {task.name}" for name, task in tasks.items())
        raise ConfigError(f"the models have different tasks and cannot be compared. {listed}")
    return next(iter(tasks.values()))


def _find_seen_rows(
    name: str, model: SweetModelForSequenceClassification, batch: TokenBatch, texts: Sequence[Text], source: str
) -> SeenRows:
    """Returns the rows that a model has seen, and warns if scores on them are not held-out scores."""
    seen = seen_rows(model, batch, plain_texts(texts))
    for role, share in seen.shares.items():
        if role in NOT_HELD_OUT:
            logger.warning(
                "%.3g %% of the rows in %s are %s rows of %s: scores on them are not held-out scores.",
                100 * share,
                source,
                role,
                name,
            )
    return seen


def _reference_answers(
    models: Mapping[str, SweetModelForSequenceClassification],
    texts: Sequence[Text],
    reference: Reference | None,
    task: Task,
) -> dict[tuple[str, ...], np.ndarray]:
    """Returns the predictions of the reference model per tuple of label names, as ids of these labels."""
    if reference is None:
        return {}
    names = dict.fromkeys(model.artifact.label_names for model in models.values())
    return {each: reference.answers(plain_texts(texts), len(texts), each, task) for each in names}


def _timed(
    models: Mapping[str, SweetModelForSequenceClassification],
    batches: Mapping[str, TokenBatch],
    timed: Sequence[tuple[str, Policy]],
    rows: int,
    repeats: int,
) -> dict[tuple[str, Policy], float]:
    """Returns the milliseconds per row of models under policies, measured in turns on a sample of the rows."""
    samples = {name: sample_rows(batch, rows) for name, batch in batches.items()}
    tasks = {
        (name, policy): functools.partial(models[name].executor.run, samples[name], policy) for name, policy in timed
    }
    return milliseconds_per_row(tasks, rows, repeats)


def _timed_policies(
    outcomes: ExitOutcomes, policy: Policy, grid: Sequence[float], timed_points: int
) -> dict[Policy, None]:
    """Returns the policy itself, each exit alone, and the timed points of the curve, without duplicates."""
    layers = [outcomes.mean_layers(policy.with_threshold(threshold)) for threshold in grid]
    thresholds = timed_subset(grid, layers, timed_points)
    exits = [single_exit_policy(place, policy) for place in range(len(outcomes.exits))]
    return dict.fromkeys([policy, *exits, *(policy.with_threshold(threshold) for threshold in thresholds)])
