"""Removing exits that do not pay: chosen by name, or by what rows would cost without them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.arguments import real_number
from itrex_sweet.artifact import Artifact, copy_artifact, keep_exits, open_artifact, write_card
from itrex_sweet.calibration.costs import CostTable, RowCosts, cost_table
from itrex_sweet.calibration.guarantees import exit_losses
from itrex_sweet.calibration.rows import read_held_out_rows
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.config import Policy
from itrex_sweet.criteria import is_switched_off, leaving_exit, looks_back
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import MISSING, percent, plain_table
from itrex_sweet.hub import fetch
from itrex_sweet.modeling import SweetModelForSequenceClassification

MIN_ROWS = 60
MOST_DROP, LEAST_GAIN = 0.05, 0.01
UNITS = ("milliseconds", "layers")


@dataclass(frozen=True)
class ExitGains:
    """The worth of each exit of a model.

    Args:
        exits: all of the model's, counts of layers.
        agreements: per exit, share of rows that get the label that full depth gives.
        kept: those that pay, the last among them.
        gains: early exit → what rows would cost more without it, a share of full depth's cost, when the other exits
            kept are there; for an exit that goes, when it went.
        rows: that it was judged on.
        max_drop: of labels, by policies that count.
        least_gain: that an exit had to save.
        costs: the table of milliseconds; `None` where costs are counted in layers.
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
        """One line for each exit, as text."""
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
    max_drop: float = MOST_DROP,
    least_gain: float = LEAST_GAIN,
    unit: str = "milliseconds",
    batch_size: int | None = None,
    max_length: int | None = None,
    **columns: Any,
) -> ExitGains:
    """Finds the exits without which rows would cost more.

    Policies are searched for as in calibration, from careful to bold. The exit without which they would be dearer by
    least is removed, and so on, until each that is left saves enough under one of them, the other thresholds held.

    Args:
        model: on the backend that will run it.
        source: rows, as `calibration.rows.read_held_out_rows` takes them, that the exits did not learn from; labels are
            ignored.
        max_drop: policies that change the labels of more rows than this share do not count.
        least_gain: share of full depth's cost that an exit has to save.
        unit: `"milliseconds"` of this machine, or `"layers"`, where probes are free.
        batch_size: rows that will be served together; the model's if absent.
        max_length: tokens per row at most.
        columns: as in `itrex_sweet.data.read_rows`.

    Raises:
        ConfigError: a share out of range, an unknown unit, or a criterion that looks back at earlier exits.
        InputError: too few rows.
    """
    shares = {"max_drop": max_drop, "least_gain": least_gain}
    max_drop, least_gain = (real_number(name, value, "a share in [0, 1]") for name, value in shares.items())
    for name, value in shares.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name}={value}: a share lies in [0, 1].")
    if unit not in UNITS:
        raise ConfigError(f"unit={unit!r}: choose one of {', '.join(UNITS)}.")
    if looks_back(model.policy):
        raise ConfigError(
            f"criterion={model.policy.criterion!r} counts earlier exits, so none can be judged by itself: calibrate "
            "with another criterion, or name the exits to keep."
        )
    rows = read_held_out_rows(model, source, max_length, **{"label_column": None, **columns})
    if len(rows) < MIN_ROWS:
        raise InputError(f"{rows.name} has {len(rows)} rows: at least {MIN_ROWS} are needed to judge exits.")
    outcomes = ExitOutcomes.from_executor(model.executor, rows.batch, description="judging exits")
    policy = dataclasses.replace(model.policy, deepest=None)
    costs = None
    row_costs = RowCosts.of_layers(model.artifact.layers_run, len(rows))
    if unit == "milliseconds":
        size = batch_size or model.executor.batch_size
        costs = cost_table(model, rows.batch, size, policy.criterion)
        row_costs = costs.of(rows.batch.lengths, size)
    confidences = outcomes.confidences(policy)
    losses = exit_losses(outcomes.predictions(), None)
    found = candidate_policies(policy, confidences, losses, row_costs)
    judged = _Judged(confidences, losses, row_costs)
    within = [each for each in found if judged.loss(each) <= max_drop]
    kept, gains = _without_useless(within, judged, model.artifact.exits, least_gain)
    agreements = tuple((losses == 0).mean(axis=0).tolist())
    return ExitGains(model.artifact.exits, agreements, kept, gains, len(rows), max_drop, least_gain, costs)


def prune_exits(
    model_id: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    keep: Iterable[int] | None = None,
    data: Any = None,
    backend: str = "auto",
    threads: int | None = None,
    **options: Any,
) -> tuple[Artifact, ExitGains | None]:
    """Writes an artifact without the exits that do not pay, or with those named alone, and holds no tensor of others.

    Args:
        model_id: an artifact, a folder or on the hub.
        output: folder of the new artifact; the artifact's own, which it replaces, if absent.
        keep: exits to keep; the last one always stays.
        data: or rows to find out by which of them pay.
        backend: that will run it, for its costs.
        threads: to compute with at most.
        options: as of `find_useful_exits`.

    Returns:
        the artifact, and with `data`, which exits pay.

    Raises:
        ConfigError: both `keep` and `data` or neither, or exits that the artifact does not have.
        InputError: too few rows.
        ArtifactError: the artifact cannot be read, or the folder not be written.
    """
    if (keep is None) == (data is None):
        raise ConfigError("name the exits to keep, or give data that shows which of them pay: one of the two.")
    directory, worth = fetch(model_id), None
    if data is None:
        artifact = open_artifact(directory)
        kept = tuple(keep)
    else:
        model = SweetModelForSequenceClassification.from_pretrained(directory, backend=backend, threads=threads)
        artifact, worth = model.artifact, find_useful_exits(model, data, **options)
        kept = worth.kept
    target = artifact.directory if output is None else Path(output)
    costs = None if worth is None or worth.costs is None else worth.costs.to_dict()
    if worth is not None and kept == artifact.exits:
        return artifact if output is None else copy_artifact(artifact, target, costs=costs), worth
    written = keep_exits(artifact, kept, target, costs)
    write_card(written, render_card(written))
    return written, worth


def remove_unused_exits(artifact: Artifact) -> Artifact:
    """Removes, in place, the exits at which the stored policy lets no row leave; every row is answered as before.

    The calibration stays as it is. Policies that look back at earlier exits need them all.
    """
    policy = artifact.policy
    places = [place for place in range(len(artifact.exits)) if not is_switched_off(policy, place)]
    if len(places) == len(artifact.exits) or policy.deepest is not None:
        return artifact
    written = keep_exits(artifact, [artifact.exits[place] for place in places], artifact.directory)
    write_card(written, render_card(written))
    return written


class _Judged:
    """Some rows, to try policies on."""

    def __init__(self, confidences: np.ndarray, losses: np.ndarray, costs: RowCosts):
        self.confidences, self.losses, self.costs = confidences, losses, costs
        self.full_cost = float(costs.through[:, -1].mean())

    def loss(self, policy: Policy) -> float:
        """Share of rows that get another label than at full depth."""
        leaving = leaving_exit(policy, self.confidences)
        return float(self.losses[np.arange(len(leaving)), leaving].mean())

    def cost(self, policy: Policy) -> float:
        """Mean cost, as a share of full depth's."""
        return float(self.costs.under(policy, leaving_exit(policy, self.confidences)).mean()) / self.full_cost


def _without_useless(
    policies: list[Policy], judged: _Judged, exits: tuple[int, ...], least_gain: float
) -> tuple[tuple[int, ...], dict[int, float]]:
    """The exits that stay, and what each saves at most under one of the policies."""
    gains: dict[int, float] = {}
    left = list(range(len(exits) - 1))
    while left:
        now = {place: max(_saved(each, place, judged) for each in policies) for place in left}
        gains.update({exits[place]: gain for place, gain in now.items()})
        least = min(left, key=lambda place: now[place])
        if now[least] >= least_gain:
            break
        left.remove(least)
        policies = [_without(each, least) for each in policies]
    return (*(exits[place] for place in left), exits[-1]), gains


def _saved(policy: Policy, place: int, judged: _Judged) -> float:
    return judged.cost(_without(policy, place)) - judged.cost(policy)


def _without(policy: Policy, place: int) -> Policy:
    thresholds = policy.thresholds
    return policy.with_threshold((*thresholds[:place], 1.0, *thresholds[place + 1 :]))
