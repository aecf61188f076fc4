"""Calibrates a model on the backend that runs it: fits temperatures, and selects a policy for a budget.

A third of the rows, the tuning rows, fit temperatures and find candidate policies, from conservative to aggressive. The
others, the testing rows, test the candidates in this order (`bounds`), so the guarantee does not depend on the search.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.constant_prediction import warn_of_constant_prediction
from itrex_sweet.calibration.cost_measurement import cost_table
from itrex_sweet.calibration.costs import CostTable, RowCosts
from itrex_sweet.calibration.drift import traffic_summary
from itrex_sweet.calibration.guarantees import Guarantee, PairedPredictions, exit_losses, guarantee_for, loss_counts
from itrex_sweet.calibration.result import Calibration, Candidate
from itrex_sweet.calibration.rows import check_label_coverage, read_held_out_rows, unseen_rows
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.calibration.selection import TUNING_SHARE, select_candidate
from itrex_sweet.calibration.temperature import as_binary, brier_score, expected_calibration_error, fit_temperature
from itrex_sweet.criteria import is_stateful
from itrex_sweet.defaults import DEFAULT_SEED, MILLISECONDS, UNITS
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.label_agreement import label_agreements, warn_of_lost_labels
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.reference import Reference, open_reference
from itrex_sweet.evaluation.report import single_exit_policy
from itrex_sweet.metrics import METRICS, Metric, accuracy
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.policy import Policy
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task

MIN_ROWS = 60
_SEARCH_TOLERANCE = 0.25  # of values, in standard deviations at full depth, where no tolerance is set


def calibrate(
    model: SweetModelForSequenceClassification,
    source: Any,
    budget: Budget,
    *,
    criterion: str | None = None,
    per_exit: bool = True,
    unit: str = MILLISECONDS,
    batch_size: int | None = None,
    costs: CostTable | None = None,
    seed: int = DEFAULT_SEED,
    max_length: int | None = None,
    force: bool = False,
    against: str | os.PathLike | Reference | None = None,
    **columns: Any,
) -> Calibration:
    """Fits temperatures and finds the cheapest policy within a budget, on rows that the model has not seen.

    Args:
        model: on the backend that will run it; it is not changed.
        source: rows, as `calibration.rows.read_held_out_rows` takes them; labelled if the budget limits a drop of
            accuracy or of a metric. Temperatures are fitted if there are labels.
        budget: the drop and cost allowed.
        criterion: one of `itrex_sweet.policy.CRITERIA`; the model's if absent.
        per_exit: one threshold per exit; otherwise one for all exits.
        unit: of costs: `"milliseconds"` on this machine, or `"layers"`, which are machine-independent and in which
            probes are free.
        batch_size: of the deployment, for costs in milliseconds; absent, 1 for a budget of latency, otherwise the
            model's.
        costs: cost table to use instead of the artifact's or a new measurement.
        seed: of the random split into tuning and testing rows.
        max_length: maximum number of tokens per row.
        force: use rows that the model has seen in training, quantization or reports.
        against: limit the drop against this model's answers instead of those of the same model at full depth: the
            folder of a plain Hugging Face classifier or of an artifact (run at full depth), or a file that
            `itrex-sweet predict` wrote for the same rows. Labels are matched by name.
        columns: as in `itrex_sweet.data.read_rows`.

    Raises:
        ConfigError: an unknown unit or criterion, a budget of latency with costs in layers, or a criterion that the
            exits were not trained for.
        InputError: too few rows, too many rows seen before (a few are skipped), labels that are missing or all the
            same, or logits that are not finite.
        CalibrationError: only the full model can be certified, or the budget cannot be met; the message says why, and
            how many rows would be enough. With `against`, the full model itself may exceed the drop.
    """
    _check_types(model, budget, costs)
    seed = whole_number("seed", seed, 0)
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, 1)
    task = model.artifact.task
    policy = dataclasses.replace(model.policy, criterion=criterion or model.policy.criterion, max_exit_index=None)
    policy = model.artifact.checked(_with_tolerance(policy, budget, task))
    _check_metric(budget, task)
    _check_unit(unit, budget)
    guarantee = guarantee_for(budget)
    reference = None if against is None else open_reference(against)
    if reference is not None and guarantee is None:
        raise ConfigError("against needs a budget with a drop, such as max_accuracy_drop.")
    all_rows = rows = read_held_out_rows(model, source, max_length, **columns)
    if not force:
        unseen = unseen_rows(model, rows)
        rows = rows.select(unseen)
    batch, labels, name = rows.batch, rows.labels, rows.name
    _check_enough_rows(len(batch), name, guarantee)
    check_label_coverage(labels, name, budget.needs_labels)
    reference_answers = None
    if reference is not None:
        reference_answers = reference.answers(all_rows.texts, len(all_rows), model.artifact.label_names, task)
        reference_answers = reference_answers if force else reference_answers[unseen]
    outcomes = ExitOutcomes.from_executor(model.executor, batch, labels, "calibrating")
    _check_finite(outcomes.logits, name)
    if unit == "milliseconds":
        batch_size = batch_size or (model.executor.batch_size if budget.max_latency_ms is None else 1)
        costs = costs or cost_table(model, batch, batch_size, policy.criterion)
        row_costs = costs.of(batch.lengths, batch_size)
    else:
        costs, batch_size, row_costs = None, None, RowCosts.from_layers(outcomes.layers_run, len(batch))

    order = np.random.default_rng(seed).permutation(len(batch))
    tuning, testing = np.split(order, [round(len(order) * TUNING_SHARE)])
    policy, temperatures = _fit_temperatures(policy, outcomes.logits, labels, tuning, testing, task)
    given_labels = labels
    if budget.max_agreement_drop is not None:
        labels = None
    full = outcomes.predictions(policy)[:, -1] if reference_answers is None else reference_answers
    tolerance = policy.tolerance
    if task.name == REGRESSION and tolerance is None:  # a budget of a metric or of layers; used by the search only
        tolerance = _SEARCH_TOLERANCE * float(np.std(full))
    losses = exit_losses(outcomes.predictions(policy), labels, full, task, tolerance)
    confidences = outcomes.confidences(policy)
    policies = candidate_policies(
        policy, confidences[tuning], losses[tuning], row_costs.select(tuning), per_exit, budget.epsilon
    )
    outcomes, row_costs, full = outcomes.select(testing), row_costs.select(testing), full[testing]
    truth = None if labels is None else labels[testing]

    def measure(policies: Sequence[Policy]) -> tuple[list[PairedPredictions], list[Candidate]]:
        predictions = [PairedPredictions(outcomes.answers(each), full, truth, task, tolerance) for each in policies]
        return predictions, [
            _measure_candidate(each, answers, outcomes, row_costs, costs is not None, guarantee, budget)
            for each, answers in zip(policies, predictions, strict=True)
        ]

    predictions, candidates = measure(policies)
    early = () if is_stateful(policy) else range(len(outcomes.exits) - 1)  # some states need every exit
    _, fixed_exits = measure([single_exit_policy(place, policy) for place in early])
    against_name = None if reference is None else reference.name
    warn_of_constant_prediction(predictions[0], guarantee, model.artifact.label_names)
    recipe = model.artifact.quantization.get("recipe")
    chosen, num_certified = select_candidate(candidates, predictions, budget, guarantee, against_name, recipe)
    told = label_agreements(task, predictions[chosen].policy, full, model.artifact.label_names)
    warn_of_lost_labels(model.artifact.directory.name, told, against_name or "full depth")
    rows_for_the_next = None
    if num_certified is not None and num_certified < len(candidates):
        rows_for_the_next = guarantee.rows_needed(predictions[num_certified])
    metrics = None
    if task.name != SINGLE_LABEL and given_labels is not None:
        metrics = _task_metrics(task, predictions[chosen], given_labels[testing])
    return Calibration(
        policy=candidates[chosen].policy,
        budget=budget,
        bound=None if guarantee is None else guarantee.name,
        candidates=tuple(candidates),
        chosen=chosen,
        certified=num_certified,
        rows_for_the_next=rows_for_the_next,
        rows=(len(tuning), len(testing)),
        temperatures=temperatures,
        fingerprints=Fingerprints.of(batch.rows()),
        traffic=traffic_summary(outcomes, candidates[chosen].policy),
        costs=costs,
        against=None if reference is None else _reference_record(reference, predictions[0], budget),
        fixed_exits=tuple(fixed_exits),
        labels=told,
        facts={
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "source": Path(name).name,
            "backend": model.backend.name,
            "precision": model.artifact.precision,
            "exits": list(model.artifact.exits),
            "criterion": policy.criterion,
            "unit": unit,
            "batch_size": batch_size,
            "seed": seed,
            **({} if metrics is None else {"metrics": metrics}),
        },
    )


def _measure_candidate(
    policy: Policy,
    predictions: PairedPredictions,
    outcomes: ExitOutcomes,
    costs: RowCosts,
    in_milliseconds: bool,
    guarantee: Guarantee | None,
    budget: Budget,
) -> Candidate:
    """Returns a policy with its measurements on the testing rows."""
    cost = float(costs.under(policy, outcomes.leaving(policy)).mean())
    return Candidate(
        policy=policy,
        mean_layers=outcomes.mean_layers(policy),
        milliseconds=cost if in_milliseconds else None,
        counts=loss_counts(predictions),
        score=_score(predictions, budget),
        p_value=None if guarantee is None else guarantee.p_value(predictions),
    )


def _score(predictions: PairedPredictions, budget: Budget) -> float:
    """Returns the metric of the budget, or accuracy; without labels, agreement with the compared model."""
    targets = predictions.reference if predictions.labels is None else predictions.labels
    if budget.metric is not None or predictions.task.name == SINGLE_LABEL:
        return _metric(budget)(predictions.policy, targets)
    return float(predictions.task.agree(predictions.policy, targets, predictions.tolerance).mean())


def _task_metrics(task: Task, predictions: PairedPredictions, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns the task's metrics of the policy and of the full model on the testing rows."""
    return {
        name: {
            "policy": round(METRICS[name](predictions.policy, labels), 6),
            "full": round(METRICS[name](predictions.reference, labels), 6),
        }
        for name in task.metrics
    }


def _with_tolerance(policy: Policy, budget: Budget, task: Task) -> Policy:
    """Returns the policy with the budget's tolerance.

    Raises:
        ConfigError: a tolerance for another task than regression, or none for a drop of agreement or accuracy.
    """
    if task.name != REGRESSION:
        if budget.tolerance is not None:
            raise ConfigError(f"tolerance={budget.tolerance:g}: only regression has one; this model is {task.name}.")
        return policy
    policy = dataclasses.replace(policy, tolerance=budget.tolerance or policy.tolerance)
    if policy.tolerance is None and budget.max_metric_drop is None and budget.epsilon is not None:
        raise ConfigError(
            "a budget of agreement or accuracy in a regression needs tolerance (--tolerance), the difference up to "
            "which values agree, in the unit of the labels."
        )
    return policy


def _check_metric(budget: Budget, task: Task) -> None:
    if isinstance(budget.metric, str) and budget.metric not in task.metrics:
        raise ConfigError(
            f"metric={budget.metric!r} does not fit {task.name}: choose one of {', '.join(task.metrics)}."
        )


def _metric(budget: Budget) -> Metric:
    metric = budget.metric or accuracy
    return METRICS[metric] if isinstance(metric, str) else metric


def _reference_record(reference: Reference, full_depth: PairedPredictions, budget: Budget) -> dict[str, Any]:
    """Returns the artifact's record of the model that the policy is compared with."""
    record = reference.to_dict()
    if full_depth.labels is not None:
        record["score"] = round(_metric(budget)(full_depth.reference, full_depth.labels), 6)
    return record


def _check_finite(logits: np.ndarray, name: str) -> None:
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=(1, 2)))
    if len(broken):
        raise InputError(
            f"the model's logits are not finite for {len(broken)} of {len(logits)} rows of {name}, the first is row "
            f"{broken[0]}: its weights diverged, or the rows are corrupt. Such answers cannot be certified.",
            tuple(broken.tolist()),
        )


def _fit_temperatures(
    policy: Policy, logits: np.ndarray, labels: np.ndarray | None, tuning: np.ndarray, testing: np.ndarray, task: Task
) -> tuple[Policy, dict[str, list[float]]]:
    """Fits temperatures on the tuning rows, in multi-label classification by the likelihood of all labels.

    Returns:
        the policy with these temperatures, and the temperatures with calibration errors on the testing rows.
    """
    before = list(policy.temperatures)
    if labels is None or not task.has_temperatures:
        return policy, {"before": before, "after": before}
    exits = range(logits.shape[1])

    def rows_at(rows: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        at_exit = logits[rows, index], labels[rows]
        return as_binary(*at_exit) if task.name == MULTI_LABEL else at_exit

    after = [fit_temperature(*rows_at(tuning, index)) for index in exits]

    def evaluate(score: Any, temperatures: list[float]) -> list[float]:
        return [round(score(*rows_at(testing, index), temperatures[index]), 4) for index in exits]

    return dataclasses.replace(policy, temperatures=tuple(after)), {
        "before": before,
        "after": after,
        "calibration_error_before": evaluate(expected_calibration_error, before),
        "calibration_error_after": evaluate(expected_calibration_error, after),
        "brier_score_before": evaluate(brier_score, before),
        "brier_score_after": evaluate(brier_score, after),
    }


def _check_unit(unit: str, budget: Budget) -> None:
    if unit not in UNITS:
        raise ConfigError(f"unit={unit!r}: choose one of {', '.join(UNITS)}.")
    if unit == "layers" and budget.max_latency_ms is not None:
        raise ConfigError("max_latency_ms needs costs in time: calibrate with unit='milliseconds'.")


def _check_types(model: Any, budget: Any, costs: Any) -> None:
    for name, value, kind in (
        ("model", model, SweetModelForSequenceClassification),
        ("budget", budget, Budget),
        ("costs", costs, CostTable),
    ):
        if not isinstance(value, kind) and not (name == "costs" and value is None):
            raise ConfigError(f"{name} is of type {type(value).__name__}, expected {kind.__name__}.")


def _check_enough_rows(rows: int, name: str, guarantee: Guarantee | None) -> None:
    min_rows = MIN_ROWS
    if guarantee is not None:
        min_rows = max(min_rows, int(np.ceil(guarantee.min_rows() / (1 - TUNING_SHARE))))
    if rows < min_rows:
        raise InputError(
            f"{name} has {rows} rows; this budget needs at least {min_rows}, even for a policy that loses no row."
        )
