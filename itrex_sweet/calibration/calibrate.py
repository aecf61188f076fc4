"""Calibrating the model that will run: temperatures, then the cheapest policy that keeps a promise, or a budget.

A third of the rows fit temperatures and choose candidates, from careful to bold; the others, which had no part in that,
test them in this order (`bounds`). So the promise holds whatever the candidates are.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.costs import CostTable, RowCosts, cost_table
from itrex_sweet.calibration.drift import traffic_summary
from itrex_sweet.calibration.guarantees import Guarantee, PairedPredictions, exit_losses, guarantee_for, loss_counts
from itrex_sweet.calibration.result import Calibration, Candidate
from itrex_sweet.calibration.rows import check_label_coverage, read_held_out_rows, unseen_rows
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.calibration.selection import TUNING_SHARE, select_candidate
from itrex_sweet.calibration.temperature import brier_score, expected_calibration_error, fit_temperature
from itrex_sweet.config import Policy
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.metrics import METRICS, Metric, accuracy
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.reference import Reference, open_reference
from itrex_sweet.modeling import SweetModelForSequenceClassification

MIN_ROWS = 60
UNITS = ("milliseconds", "layers")


def calibrate(
    model: SweetModelForSequenceClassification,
    source: Any,
    budget: Budget,
    *,
    criterion: str | None = None,
    per_exit: bool = True,
    unit: str = "milliseconds",
    batch_size: int | None = None,
    costs: CostTable | None = None,
    seed: int = 0,
    max_length: int | None = None,
    force: bool = False,
    against: str | os.PathLike | Reference | None = None,
    **columns: Any,
) -> Calibration:
    """Fits temperatures and finds the cheapest policy within a budget, on rows the model has not seen.

    Args:
        model: on the backend that will run it; nothing of it is changed.
        source: rows, as `calibration.rows.read_held_out_rows` takes them; labelled if accuracy or a metric is promised.
            Temperatures are fitted where there are labels.
        budget: what the policy may lose or spend.
        criterion: one of `config.CRITERIA`; the model's if absent.
        per_exit: each exit its own threshold; else one for all.
        unit: what rows cost: `"milliseconds"` of this machine, or `"layers"`, the same everywhere, where probes are
            free.
        batch_size: rows that will be served together, which milliseconds depend on; absent, 1 for a budget of
            latency, else the model's.
        costs: instead of the artifact's table, or of one that is measured now.
        seed: of the dealing of rows.
        max_length: tokens per row at most.
        force: calibrate although some of the rows were trained or reported on.
        against: promise the drop against this model's answers instead of the same model's at full depth: the folder of
            a plain Hugging Face classifier, of an artifact (its full depth), or a file that `itrex-sweet predict`
            wrote of the same rows. Labels are matched by name.
        columns: as in `itrex_sweet.data.read_rows`.

    Raises:
        ConfigError: an unknown unit or criterion, a budget of latency in layers, or what these exits did not learn.
        InputError: too few rows, many of them seen before (a few are left out), labels missing or all the same, or
            logits that are not finite.
        CalibrationError: nothing but the full model can be certified, or the budget cannot be met; the message says
            why, and how many rows would be enough. With `against`, the full model itself may lose too much: then by how
            much.
    """
    _refuse_other_types(model, budget, costs)
    seed = whole_number("seed", seed, 0)
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, 1)
    policy = dataclasses.replace(model.policy, criterion=criterion or model.policy.criterion, deepest=None)
    model.artifact.checked(policy)
    _refuse_unit(unit, budget)
    promise = guarantee_for(budget)
    reference = None if against is None else open_reference(against)
    if reference is not None and promise is None:
        raise ConfigError("against compares what may be lost: name a drop, such as max_accuracy_drop.")
    given = rows = read_held_out_rows(model, source, max_length, **columns)
    if not force:
        kept = unseen_rows(model, rows)
        rows = rows.select(kept)
    batch, labels, name = rows.batch, rows.labels, rows.name
    _refuse_too_few(len(batch), name, promise)
    check_label_coverage(labels, name, budget.needs_labels)
    compared = None
    if reference is not None:
        compared = reference.answers(given.texts, len(given), model.artifact.label_names)
        compared = compared if force else compared[kept]
    outcomes = _observed(model, batch, labels, name)
    if unit == "milliseconds":
        batch_size = batch_size or (model.executor.batch_size if budget.max_latency_ms is None else 1)
        costs = costs or cost_table(model, batch, batch_size, policy.criterion)
        row_costs = costs.of(batch.lengths, batch_size)
    else:
        costs, batch_size, row_costs = None, None, RowCosts.of_layers(outcomes.layers_run, len(batch))

    order = np.random.default_rng(seed).permutation(len(batch))
    choosing, testing = np.split(order, [round(len(order) * TUNING_SHARE)])
    policy, temperatures = _with_temperatures(policy, outcomes.logits, labels, choosing, testing)
    by_labels = labels if budget.max_agreement_drop is None else None
    full = outcomes.predictions()[:, -1] if compared is None else compared
    losses = exit_losses(outcomes.predictions(), by_labels, full)
    confidences = outcomes.confidences(policy)
    found = candidate_policies(policy, confidences[choosing], losses[choosing], row_costs.select(choosing), per_exit)
    outcomes, row_costs, full = outcomes.select(testing), row_costs.select(testing), full[testing]
    truth = None if by_labels is None else by_labels[testing]
    said = [PairedPredictions(outcomes.answers(each), full, truth) for each in found]
    candidates = [
        _candidate(each, answered, outcomes, row_costs, costs is not None, promise, budget)
        for each, answered in zip(found, said, strict=True)
    ]
    chosen, passed = select_candidate(candidates, said, budget, promise, None if reference is None else reference.name)
    next_needs = promise.rows_needed(said[passed]) if passed is not None and passed < len(said) else None
    return Calibration(
        policy=candidates[chosen].policy,
        budget=budget,
        bound=None if promise is None else promise.name,
        candidates=tuple(candidates),
        chosen=chosen,
        certified=passed,
        rows_for_the_next=next_needs,
        rows=(len(choosing), len(testing)),
        temperatures=temperatures,
        fingerprints=Fingerprints.of(batch.rows()),
        traffic=traffic_summary(outcomes, candidates[chosen].policy),
        costs=costs,
        against=None if reference is None else _recorded(reference, said[0], budget),
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
        },
    )


def _candidate(
    policy: Policy,
    said: PairedPredictions,
    outcomes: ExitOutcomes,
    costs: RowCosts,
    in_milliseconds: bool,
    promise: Guarantee | None,
    budget: Budget,
) -> Candidate:
    """A policy with what the testing rows say of it."""
    cost = float(costs.under(policy, outcomes.leaving(policy)).mean())
    return Candidate(
        policy=policy,
        mean_layers=outcomes.mean_layers(policy),
        milliseconds=cost if in_milliseconds else None,
        counts=loss_counts(said),
        score=_metric_of(budget)(said.answers, said.full if said.labels is None else said.labels),
        p_value=None if promise is None else promise.p_value(said),
    )


def _metric_of(budget: Budget) -> Metric:
    metric = budget.metric or accuracy
    return METRICS[metric] if isinstance(metric, str) else metric


def _recorded(reference: Reference, full_depth: PairedPredictions, budget: Budget) -> dict[str, Any]:
    """The record in an artifact of the model that the promise is against."""
    scored = {}
    if full_depth.labels is not None:
        scored["score"] = round(_metric_of(budget)(full_depth.full, full_depth.labels), 6)
    return {**reference.to_dict(), **scored}


def _observed(
    model: SweetModelForSequenceClassification, batch: Any, labels: np.ndarray | None, name: str
) -> ExitOutcomes:
    outcomes = ExitOutcomes.from_executor(model.executor, batch, labels, "calibrating")
    broken = np.flatnonzero(~np.isfinite(outcomes.logits).all(axis=(1, 2)))
    if len(broken):
        raise InputError(
            f"the model's logits are not finite for {len(broken)} of {len(batch)} rows of {name}, the first "
            f"{broken[0]}: its weights diverged, or the rows are broken. Nothing can be promised for such answers.",
            tuple(broken.tolist()),
        )
    return outcomes


def _with_temperatures(
    policy: Policy, logits: np.ndarray, labels: np.ndarray | None, choosing: np.ndarray, testing: np.ndarray
) -> tuple[Policy, dict[str, list[float]]]:
    """The policy with temperatures fitted on some rows, and how well confidences match on others."""
    before = list(policy.temperatures)
    if labels is None:
        return policy, {"before": before, "after": before}
    exits = range(logits.shape[1])
    after = [fit_temperature(logits[choosing, place], labels[choosing]) for place in exits]

    def judged(score: Any, temperatures: list[float]) -> list[float]:
        return [round(score(logits[testing, place], labels[testing], temperatures[place]), 4) for place in exits]

    return dataclasses.replace(policy, temperatures=tuple(after)), {
        "before": before,
        "after": after,
        "calibration_error_before": judged(expected_calibration_error, before),
        "calibration_error_after": judged(expected_calibration_error, after),
        "brier_score_before": judged(brier_score, before),
        "brier_score_after": judged(brier_score, after),
    }


def _refuse_unit(unit: str, budget: Budget) -> None:
    if unit not in UNITS:
        raise ConfigError(f"unit={unit!r}: choose one of {', '.join(UNITS)}.")
    if unit == "layers" and budget.max_latency_ms is not None:
        raise ConfigError("max_latency_ms is a budget of time: calibrate with unit='milliseconds'.")


def _refuse_other_types(model: Any, budget: Any, costs: Any) -> None:
    for name, value, kind in (
        ("model", model, SweetModelForSequenceClassification),
        ("budget", budget, Budget),
        ("costs", costs, CostTable),
    ):
        if not isinstance(value, kind) and not (name == "costs" and value is None):
            raise ConfigError(f"{name} is of type {type(value).__name__}: a {kind.__name__} is needed.")


def _refuse_too_few(rows: int, name: str, promise: Guarantee | None) -> None:
    least = MIN_ROWS
    if promise is not None:
        least = max(least, int(np.ceil(promise.min_rows() / (1 - TUNING_SHARE))))
    if rows < least:
        raise InputError(
            f"{name} has {rows} rows; this budget cannot be certified on fewer than {least}, even if no row were lost."
        )
