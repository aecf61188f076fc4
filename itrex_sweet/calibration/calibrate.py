"""Calibrating the model that will run: temperatures, then the cheapest policy that keeps a promise, or a budget.

A third of the rows fit temperatures and choose candidates, from careful to bold; the others, which had no part in that,
test them in this order (`bounds`). So the promise holds whatever the candidates are.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.artifact import Artifact, copy_artifact
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.bounds import LossCounts, binomial_p_value, certified, paired_p_value
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.rows import CONSEQUENCES, read_held_out_rows, shares_seen_before
from itrex_sweet.calibration.search import policies_from_careful_to_bold
from itrex_sweet.calibration.temperature import brier_score, expected_calibration_error, fit_temperature
from itrex_sweet.config import Policy
from itrex_sweet.errors import CalibrationError, InputError
from itrex_sweet.evaluation.outcomes import logits_at_every_exit, predictions_of
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.ragged import TokenBatch

logger = logging.getLogger(__name__)

CHOOSING_SHARE = 1 / 3  # of the rows; the others test
LEAST_ROWS = 60
MOST_SEEN_BEFORE = 0.05  # share of the rows, above which they are refused
_MOST_NEEDED = 10**7


@dataclass(frozen=True)
class Candidate:
    """A policy, and what the testing rows say of it.

    Args:
        policy: with the new temperatures.
        mean_layers: run per testing row.
        counts: rows that it lost and won against the full model.
        p_value: of the hypothesis that it loses more than the budget; `None` where nothing is promised.
    """

    policy: Policy
    mean_layers: float
    counts: LossCounts
    p_value: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "thresholds": [round(value, 6) for value in self.policy.thresholds],
            "mean_layers": round(self.mean_layers, 4),
            **dataclasses.asdict(self.counts),
            "p_value": self.p_value,
        }


@dataclass(frozen=True)
class Calibration:
    """A policy for a budget, and all that it rests on.

    Args:
        policy: the one chosen.
        budget: that it keeps to.
        candidates: from careful to bold, the full model first.
        chosen: place of the policy among them.
        certified: how many of them, from the first, are certified; `None` where nothing is promised.
        rows_for_the_next: testing rows that would probably certify the next bolder one; `None` if none would.
        rows: rows that chose, and rows that tested.
        temperatures: before and after, and the calibration errors and Brier scores under both, per exit.
        fingerprints: of the rows.
        facts: where the model ran, and what was read.
    """

    policy: Policy
    budget: Budget
    candidates: tuple[Candidate, ...]
    chosen: int
    certified: int | None
    rows_for_the_next: int | None
    rows: tuple[int, int]
    temperatures: dict[str, list[float]]
    fingerprints: Fingerprints
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """What an artifact records, in plain JSON types."""
        return {
            **self.facts,
            "budget": self.budget.to_dict(),
            "bound": _bound(self.budget)[1] if self.certified is not None else None,
            "rows_choosing": self.rows[0],
            "rows_testing": self.rows[1],
            "certified": self.certified,
            "rows_for_the_next": self.rows_for_the_next,
            "chosen": self.candidates[self.chosen].to_dict(),
            "switched_off": [
                exit_
                for exit_, threshold in zip(self.facts["exits"], self.policy.thresholds, strict=False)
                if threshold >= 1.0
            ],
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "temperatures": self.temperatures,
        }

    def write(self, artifact: Artifact, directory: str | Path | None = None) -> Artifact:
        """Writes the artifact with this policy, in place if no folder is named.

        Raises:
            ArtifactError: the folder cannot be written; what it held before is untouched.
        """
        target = artifact.directory if directory is None else directory
        return copy_artifact(artifact, target, self.policy, calibration=self.to_dict(), calibrated_on=self.fingerprints)


def calibrate(
    model: SweetModelForSequenceClassification,
    source: Any,
    budget: Budget,
    *,
    criterion: str | None = None,
    per_exit: bool = True,
    seed: int = 0,
    max_length: int | None = None,
    force: bool = False,
    **columns: Any,
) -> Calibration:
    """Fits temperatures and finds the cheapest policy within a budget, on rows the model has not seen.

    Args:
        model: on the backend that will run it; nothing of it is changed.
        source: rows, as `calibration.rows.read_held_out_rows` takes them; labelled if accuracy is promised.
            Temperatures are fitted where there are labels.
        budget: what the policy may lose or spend.
        criterion: one of `config.CRITERIA`; the model's if absent.
        per_exit: each exit its own threshold; else one for all.
        seed: of the dealing of rows.
        max_length: tokens per row at most.
        force: calibrate although some of the rows were trained or reported on.
        columns: as in `itrex_sweet.data.read_rows`.

    Raises:
        InputError: too few rows, many of them seen before (a few are left out), labels missing or all the same, or
            logits that are not finite.
        CalibrationError: nothing but the full model can be certified, or the budget cannot be met; the message says
            why, and how many rows would be enough.
    """
    batch, labels, name = read_held_out_rows(model, source, max_length, **columns)
    if not force:
        kept = _not_seen_before(batch, model.artifact, name)
        batch, labels = batch.select(kept), None if labels is None else labels[kept]
    _refuse_too_few(len(batch), name, budget)
    _refuse_useless_labels(labels, name, budget)
    fingerprints = Fingerprints.of(batch.rows())
    logits = logits_at_every_exit(model.executor, batch, "calibrating")
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=(1, 2)))
    if len(broken):
        raise InputError(
            f"the model's logits are not finite for {len(broken)} of {len(batch)} rows of {name}, the first "
            f"{broken[0]}: its weights diverged, or the rows are broken. Nothing can be promised for such answers.",
            tuple(broken.tolist()),
        )
    order = np.random.default_rng(seed).permutation(len(batch))
    choosing, testing = np.split(order, [round(len(order) * CHOOSING_SHARE)])
    policy = dataclasses.replace(model.policy, criterion=criterion or model.policy.criterion)
    policy, temperatures = _with_temperatures(policy, logits, labels, choosing, testing)
    said = predictions_of(logits)
    losses = _losses(said, labels if budget.needs_labels else None)
    layers = np.asarray(model.artifact.layers_run, dtype=np.float64)
    confidences = criteria.confidence_at_every_exit(policy, logits)
    found = policies_from_careful_to_bold(policy, confidences[choosing], losses[choosing], layers, per_exit)
    candidates = []
    for each in found:
        leaving = criteria.leaving_exit(each, confidences[testing])
        counts = LossCounts.of(losses[testing, leaving])
        p_value = None if budget.epsilon is None else _bound(budget)[0](counts, budget.epsilon)
        candidates.append(Candidate(each, float(layers[leaving].mean()), counts, p_value))
    backend = model.backend
    facts = {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "source": Path(name).name,
        "backend": backend.name,
        "precision": model.artifact.precision,
        "exits": list(model.artifact.exits),
        "criterion": policy.criterion,
        "seed": seed,
    }
    chosen, passed = _chosen(candidates, budget)
    following = candidates[passed] if passed is not None and passed < len(candidates) else None
    return Calibration(
        policy=candidates[chosen].policy,
        budget=budget,
        candidates=tuple(candidates),
        chosen=chosen,
        certified=passed,
        rows_for_the_next=None if following is None else rows_needed(following.counts, budget),
        rows=(len(choosing), len(testing)),
        temperatures=temperatures,
        fingerprints=fingerprints,
        facts=facts,
    )


def rows_needed(counts: LossCounts, budget: Budget) -> int | None:
    """Testing rows with the same shares of losses and wins that would certify a policy; `None` if no number would."""
    p_value = _bound(budget)[0]

    def enough(rows: int) -> bool:
        scale = rows / counts.rows
        scaled = LossCounts(round(counts.lost * scale), round(counts.won * scale), rows)
        return p_value(scaled, budget.epsilon) <= budget.delta

    high = max(counts.rows, 1)
    while not enough(high):
        high *= 2
        if high > _MOST_NEEDED:
            return None
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _bound(budget: Budget) -> tuple[Callable[[LossCounts, float], float], str]:
    """The test of a budget, and its name."""
    if budget.needs_labels:
        return paired_p_value, "fixed-sequence testing, betting on the paired loss"
    return binomial_p_value, "fixed-sequence testing, exact binomial"


def _chosen(candidates: list[Candidate], budget: Budget) -> tuple[int, int | None]:
    """Place of the policy to take, and how many are certified."""
    limit = budget.max_layers
    if budget.epsilon is None:
        within = [place for place, each in enumerate(candidates) if each.mean_layers <= limit]
        if not within:
            raise CalibrationError(
                f"max_layers={limit}: the boldest policy found runs {candidates[-1].mean_layers:.2f} layers on average."
            )
        return min(within, key=lambda place: (candidates[place].counts.mean_loss, candidates[place].mean_layers)), None
    # The full model, first of the candidates, loses nothing by definition.
    passed = 1 + certified([each.p_value for each in candidates[1:]], budget.delta)
    if passed == 1:
        raise CalibrationError(_why_nothing(candidates, budget))
    chosen = min(range(passed), key=lambda place: candidates[place].mean_layers)
    if limit is not None and candidates[chosen].mean_layers > limit:
        raise CalibrationError(
            f"no policy keeps to both: the cheapest certified one runs {candidates[chosen].mean_layers:.2f} layers on "
            f"average, max_layers={limit}. Allow a larger drop, more layers, or calibrate on more rows."
        )
    return chosen, passed


def _why_nothing(candidates: list[Candidate], budget: Budget) -> str:
    promise = f"a drop of at most {100 * budget.epsilon:g} % with {100 * budget.confidence:g} % confidence"
    if len(candidates) == 1:
        return f"nothing but the full model can promise {promise}: no earlier exit saves layers at an acceptable loss."
    first = candidates[1]
    seen = f"the most careful policy lost {first.counts.lost} and won {first.counts.won} of {first.counts.rows} rows"
    needed = rows_needed(first.counts, budget)
    if needed is None:
        return f"{promise} cannot be certified by any number of rows like these: {seen}. Allow a larger drop."
    return (
        f"{promise} cannot be certified on {first.counts.rows} testing rows: {seen}. Some {needed} testing rows "
        f"({round(needed / (1 - CHOOSING_SHARE))} in all) like these would be enough."
    )


def _losses(said: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """(rows, exits) in -1, 0, 1: what a row loses at each exit against the last, in accuracy or in agreement."""
    if labels is None:
        return (said != said[:, -1:]).astype(np.int64)
    right = said == labels[:, None]
    return right[:, -1:].astype(np.int64) - right.astype(np.int64)


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


def _refuse_too_few(rows: int, name: str, budget: Budget) -> None:
    testing = rows - round(rows * CHOOSING_SHARE)
    least = LEAST_ROWS
    if (
        budget.epsilon is not None
        and _bound(budget)[0](LossCounts(0, 0, max(testing, 1)), budget.epsilon) > budget.delta
    ):
        needed = rows_needed(LossCounts(0, 0, max(testing, 1)), budget)
        least = max(least, round(needed / (1 - CHOOSING_SHARE)))
    if rows < least:
        raise InputError(
            f"{name} has {rows} rows; this budget cannot be certified on fewer than {least}, even if no row were lost."
        )


def _refuse_useless_labels(labels: np.ndarray | None, name: str, budget: Budget) -> None:
    if labels is None and budget.needs_labels:
        raise InputError(
            f"{name} has no labels, and max_accuracy_drop needs them. max_agreement_drop compares with the full "
            "model's answers, and needs none."
        )
    if labels is not None and len(np.unique(labels)) < 2:
        raise InputError(
            f"every row of {name} has the label {labels[0]}: calibrate on rows as they come, of every label."
        )


def _not_seen_before(batch: TokenBatch, artifact: Artifact, name: str) -> np.ndarray:
    """Places of the rows that the model was neither trained nor reported on; a few others, such as texts that come
    twice, are left out.

    Raises:
        InputError: they are more than a few.
    """
    recorded, rows = artifact.fingerprints(), batch.rows()
    for role, share in shares_seen_before(Fingerprints.of(rows), recorded).items():
        if share <= MOST_SEEN_BEFORE:
            continue
        raise InputError(
            f"{100 * share:.0f} % of the rows in {name} are {role} rows of this model: {CONSEQUENCES[role]}. Calibrate "
            "on others, or pass force=True (--force) and take no promise from it."
        )
    seen = np.zeros(len(batch), dtype=bool)
    for role in CONSEQUENCES:
        if role in recorded:
            seen |= recorded[role].holds(rows)
    if seen.any():
        logger.warning("%d of %d rows in %s were trained or reported on: left out.", seen.sum(), len(seen), name)
    return np.flatnonzero(~seen)
