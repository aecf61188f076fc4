"""Chooses the policies that are compared, on held-out rows: certified ones, and the cheapest that seem good enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import copy_artifact, open_artifact
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.calibration.result import Calibration
from itrex_sweet.data import Rows
from itrex_sweet.errors import CalibrationError, InputError
from itrex_sweet.evaluation.reference import Reference, open_reference

KEPT = 0.99  # share of the plain model's accuracy
CERTIFIED, CHOSEN = "certified", "chosen"
BATCHES = (32, 1)  # texts per call; a probe costs more of a call with one text, so each has its own policy
_EVERY_CANDIDATE = 0.5  # a budget that certifies all candidates, to read their measurements


def choose(run: Path, folder: Path, rows: tuple[list[Any], list[int]], threads: int) -> dict[str, Any]:
    """Writes an artifact per policy and batch size to `folder/NAME-BATCH`, and returns how they were chosen.

    Args:
        run: folder of the task's models: `int8`, and `float32`, whose full depth is the plain model.
        folder: to write to.
        rows: texts and labels, neither trained on nor reported on.
        threads: of the deployment.
    """
    model = SweetModelForSequenceClassification.from_pretrained(run / "int8", backend="native", threads=threads)
    held_out = Rows(*rows, source="held out")
    plain = open_reference(run / "float32")
    plain_score = accuracy_of(plain, model, rows)
    result: dict[str, Any] = {"rows": len(rows[0]), "plain": round(plain_score, 5)}
    for size in BATCHES:
        result[f"{CERTIFIED}-{size}"] = certified(model, held_out, plain, plain_score, size, folder)
        result[f"{CHOSEN}-{size}"] = chosen(model, held_out, plain, size, folder)
    return result


def accuracy_of(
    plain: Reference, model: SweetModelForSequenceClassification, rows: tuple[list[Any], list[int]]
) -> float:
    """Returns the accuracy of the plain model."""
    answers = plain.answers(rows[0], len(rows[0]), model.artifact.label_names)
    return float((answers == rows[1]).mean())


def certified(
    model: SweetModelForSequenceClassification, rows: Rows, plain: Reference, score: float, size: int, folder: Path
) -> dict[str, Any]:
    """Calibrates with a guarantee against the plain model; without one, writes the policy that never exits early."""
    budget = Budget(max_accuracy_drop=(1 - KEPT) * score)
    target = folder / f"{CERTIFIED}-{size}"
    try:
        found = calibrate(model, rows, budget, batch_size=size, against=plain, force=True)
    except (CalibrationError, InputError) as error:
        copy_artifact(open_artifact(model.artifact.directory), target, model.policy.with_threshold(1.0))
        return {"refused": str(error)}
    found.write(model.artifact, target)
    return {**_figures(found, found.chosen), "bound": found.bound, "certified": found.certified}


def chosen(
    model: SweetModelForSequenceClassification, rows: Rows, plain: Reference, size: int, folder: Path
) -> dict[str, Any]:
    """Writes the last candidate, from conservative to aggressive, before the first that keeps less than `KEPT`.

    The candidates come from the tuning rows, and are judged on the testing rows.
    """
    budget = Budget(max_accuracy_drop=_EVERY_CANDIDATE)
    found = calibrate(model, rows, budget, batch_size=size, against=plain, force=True)
    enough = KEPT * found.against["score"]
    last = next((place for place, each in enumerate(found.candidates) if each.score < enough), len(found.candidates))
    best = min(range(max(last, 1)), key=lambda place: found.candidates[place].cost)
    copy_artifact(model.artifact, folder / f"{CHOSEN}-{size}", found.candidates[best].policy)
    return _figures(found, best)


def _figures(found: Calibration, place: int) -> dict[str, Any]:
    candidate = found.candidates[place]
    return {
        "rows": list(found.rows),
        "plain": found.against["score"],
        "full depth": round(found.candidates[0].score, 5),
        "score": round(candidate.score, 5),
        "layers": round(candidate.mean_layers, 4),
        "milliseconds": candidate.milliseconds,
        "thresholds": [round(value, 4) for value in candidate.policy.thresholds],
    }
