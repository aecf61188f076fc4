"""Removes exits: named ones, or those without which rows would cost about the same."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.arguments import fraction
from itrex_sweet.artifact import Artifact, copy_artifact, keep_exits, open_artifact, write_card
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.calibration.budget import checked_tolerance
from itrex_sweet.calibration.cost_measurement import cost_table
from itrex_sweet.calibration.costs import CostTable, RowCosts
from itrex_sweet.calibration.guarantees import exit_losses
from itrex_sweet.calibration.rows import read_held_out_rows
from itrex_sweet.calibration.search import SimulatedRows, optimal_policies
from itrex_sweet.criteria import is_stateful, is_switched_off
from itrex_sweet.defaults import DEFAULT_BACKEND, DEFAULT_LEAST_GAIN, DEFAULT_MAX_DROP, MILLISECONDS, UNITS
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import MISSING, percent, plain_table
from itrex_sweet.hub import fetch
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.policy import Policy

MIN_ROWS = 60


@dataclass(frozen=True)
class ExitGains:
    """The cost that each exit of a model saves.

    Args:
        exits: all of the model's, counts of layers.
        agreements: per exit, fraction of rows that get the same label as at full depth.
        kept: exits that save enough, and the last one.
        gains: early exit → cost that it saves beside the other kept exits, a fraction of full depth's cost; for a
            removed exit, beside the exits that were left when it was removed.
        rows: number of rows.
        max_drop: largest fraction of changed labels of the policies considered.
        least_gain: saving that was required of an exit.
        costs: the table of milliseconds; `None` if costs are counted in layers.
    """

    exits: tuple[int, ...]
    agreements: tuple[float, ...]
    kept: tuple[int, ...]
    gains: dict[int, float]
    rows: int
    max_drop: float
    least_gain: float
    costs: CostTable | None

    def table(self) -> str:
        """Returns a table with a line per exit, as text."""
        rows = [
            [
                str(exit_),
                percent(agreement),
                percent(self.gains[exit_]) if exit_ in self.gains else MISSING,
                "kept" if exit_ in self.kept else "removed",
            ]
            for exit_, agreement in zip(self.exits, self.agreements, strict=True)
        ]
        return plain_table(["exit", "agreement", "saves of full depth", ""], rows)


def find_useful_exits(
    model: SweetModelForSequenceClassification,
    source: Any,
    *,
    max_drop: float = DEFAULT_MAX_DROP,
    least_gain: float = DEFAULT_LEAST_GAIN,
    unit: str = MILLISECONDS,
    batch_size: int | None = None,
    max_length: int | None = None,
    tolerance: float | None = None,
    **columns: Any,
) -> ExitGains:
    """Finds the exits that save cost.

    Candidate policies are searched as in calibration. The exit that saves least is removed, and so on (backward
    elimination), until each remaining exit saves enough under one of the policies, other thresholds unchanged.

    Args:
        model: on the backend that will run it.
        source: rows that the exits were not trained on, as `calibration.rows.read_held_out_rows` takes them; labels are
            ignored.
        max_drop: policies that change the labels of a larger fraction of rows are ignored.
        least_gain: fraction of full depth's cost that an exit must save.
        unit: `"milliseconds"` on this machine, or `"layers"`, in which probes are free.
        batch_size: of the deployment; the model's if absent.
        max_length: maximum number of tokens per row.
        tolerance: for regression, the difference up to which values agree; that of the model's policy if absent.
        columns: as in `itrex_sweet.data.read_rows`.

    Raises:
        ConfigError: a fraction out of range, an unknown unit, a criterion that depends on earlier exits, or a
            regression without a tolerance.
        InputError: too few rows.
    """
    max_drop, least_gain = fraction("max_drop", max_drop), fraction("least_gain", least_gain)
    if unit not in UNITS:
        raise ConfigError(f"unit={unit!r}: choose one of {', '.join(UNITS)}.")
    if is_stateful(model.policy):
        raise ConfigError(
            f"criterion={model.policy.criterion!r} depends on earlier exits, so exits cannot be evaluated one by one: "
            "calibrate with another criterion, or pass the exits to keep."
        )
    tolerance = checked_tolerance(model.artifact.task, tolerance, model.policy.tolerance)
    rows = read_held_out_rows(model, source, max_length, **{"label_column": None, **columns})
    if len(rows) < MIN_ROWS:
        raise InputError(f"{rows.name} has {len(rows)} rows; at least {MIN_ROWS} are needed to evaluate exits.")
    outcomes = ExitOutcomes.from_executor(model.executor, rows.batch, description="evaluating exits")
    policy = dataclasses.replace(model.policy, max_exit_index=None)
    costs = None
    row_costs = RowCosts.from_layers(model.artifact.layers_run, len(rows))
    if unit == "milliseconds":
        size = batch_size or model.executor.batch_size
        costs = cost_table(model, rows.batch, size, policy.criterion)
        row_costs = costs.of(rows.batch.lengths, size)
    confidences = outcomes.confidences(policy)
    losses = exit_losses(outcomes.predictions(policy), None, None, outcomes.task, tolerance)
    simulated = SimulatedRows(confidences, losses, row_costs)
    policies = [each for each in optimal_policies(policy, simulated) if simulated.mean_loss(each) <= max_drop]
    kept, gains = _eliminate_exits(policies, simulated, model.artifact.exits, least_gain)
    agreements = tuple((losses == 0).mean(axis=0).tolist())
    return ExitGains(model.artifact.exits, agreements, kept, gains, len(rows), max_drop, least_gain, costs)


def prune_exits(
    model_id: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    keep: Iterable[int] | None = None,
    data: Any = None,
    backend: str = DEFAULT_BACKEND,
    threads: int | None = None,
    **options: Any,
) -> tuple[Artifact, ExitGains | None]:
    """Writes an artifact with the given exits, or with those that save cost; tensors of other exits are removed.

    Args:
        model_id: an artifact, a folder or a repository on the hub.
        output: folder of the new artifact; if absent, the artifact is replaced.
        keep: exits to keep; the last one is always kept.
        data: rows on which the exits to keep are selected, instead of `keep`.
        backend: on which costs are measured.
        threads: maximum number of threads.
        options: of `find_useful_exits`.

    Returns:
        the artifact, and with `data` the savings of each exit.

    Raises:
        ConfigError: both `keep` and `data` or neither, or exits that the artifact does not have.
        InputError: too few rows.
        ArtifactError: the artifact cannot be read, or the folder cannot be written.
    """
    if (keep is None) == (data is None):
        raise ConfigError("pass either the exits to keep, or data to select them on.")
    directory, gains = fetch(model_id), None
    if data is None:
        artifact = open_artifact(directory)
        kept = tuple(keep)
    else:
        model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend, threads=threads)
        artifact = model.artifact
        require_writable(artifact.directory if output is None else Path(output))
        gains = find_useful_exits(model, data, **options)
        kept = gains.kept
    target = artifact.directory if output is None else Path(output)
    costs = None if gains is None or gains.costs is None else gains.costs.to_dict()
    if gains is not None and kept == artifact.exits:
        return artifact if output is None else copy_artifact(artifact, target, costs=costs), gains
    written = keep_exits(artifact, kept, target, costs)
    write_card(written, render_card(written))
    return written, gains


def remove_unused_exits(artifact: Artifact) -> Artifact:
    """Removes, in place, the exits that the stored policy disables; predictions do not change.

    The calibration is kept. Policies that depend on earlier exits keep all of them.
    """
    policy = artifact.policy
    used = [index for index in range(len(artifact.exits)) if not is_switched_off(policy, index)]
    if len(used) == len(artifact.exits) or policy.max_exit_index is not None:
        return artifact
    written = keep_exits(artifact, [artifact.exits[index] for index in used], artifact.directory)
    write_card(written, render_card(written))
    return written


def _eliminate_exits(
    policies: list[Policy], rows: SimulatedRows, exits: tuple[int, ...], least_gain: float
) -> tuple[tuple[int, ...], dict[int, float]]:
    """Returns the exits to keep, and the largest saving of each exit under one of the policies."""
    gains: dict[int, float] = {}
    remaining = list(range(len(exits) - 1))
    while remaining:
        current = {index: max(_saving(each, index, rows) for each in policies) for index in remaining}
        gains.update({exits[index]: gain for index, gain in current.items()})
        worst = min(remaining, key=lambda index: current[index])
        if current[worst] >= least_gain:
            break
        remaining.remove(worst)
        policies = [_without_exit(each, worst) for each in policies]
    return (*(exits[index] for index in remaining), exits[-1]), gains


def _saving(policy: Policy, index: int, rows: SimulatedRows) -> float:
    return rows.cost(_without_exit(policy, index)) - rows.cost(policy)


def _without_exit(policy: Policy, index: int) -> Policy:
    thresholds = policy.thresholds
    return policy.with_threshold((*thresholds[:index], 1.0, *thresholds[index + 1 :]))
