"""Chooses the policies that are compared, on held-out rows: certified ones, and the cheapest that seem good enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from fine_tuning import MAX_LENGTH

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import copy_artifact
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import CostTable
from itrex_sweet.calibration.result import Calibration
from itrex_sweet.data import Rows
from itrex_sweet.errors import CalibrationError, InputError
from itrex_sweet.evaluation.reference import Reference, open_reference
from itrex_sweet.runtime.ragged import TokenBatch

KEPT = 0.99  # share of the plain model's accuracy
CERTIFIED, CHOSEN = "certified", "chosen"
BATCHES = (32, 1)  # texts per call; a probe costs more of a call with one text, so each has its own policy
LENGTHS_MEASURED = 600  # rows
_EVERY_CANDIDATE = 0.5  # a budget that certifies all candidates, to read their measurements


class Remembered(Reference):
    """The answers of a reference model for the rows of the choice, computed once."""

    def __init__(self, reference: Reference, answers: np.ndarray):
        super().__init__(reference.name, reference.sha256)
        self.kind, self._answers = reference.kind, answers

    def answers(self, *arguments: Any, **options: Any) -> np.ndarray:
        return self._answers


def choose(
    run: Path, folder: Path, rows: tuple[list[Any], list[int]], threads: int, costs_file: Path
) -> dict[str, Any]:
    """Writes an artifact per policy and batch size to `folder/NAME-BATCH`, and returns how they were chosen.

    Args:
        run: folder of the task's float32 artifact, whose full depth is the plain model.
        folder: of its INT8 artifact; to write to.
        rows: texts and labels, neither trained on nor reported on.
        threads: of the deployment.
        costs_file: cost table that all tasks share, since their models have one shape; measured if it is missing.
    """
    model = SweetModelForSequenceClassification.from_pretrained(folder / "int8", backend="native", threads=threads)
    plain = open_reference(run / "float32")
    answers = plain.answers(rows[0], len(rows[0]), model.artifact.label_names)
    score = float((answers == rows[1]).mean())
    options = {"against": Remembered(plain, answers), "costs": costs_of(model, costs_file), "force": True}
    held_out = Rows(*rows, source="held out")
    result: dict[str, Any] = {"rows": len(rows[0]), "plain": round(score, 5)}
    for size in BATCHES:
        options["batch_size"] = size
        result[f"{CERTIFIED}-{size}"] = certified(model, held_out, score, folder / f"{CERTIFIED}-{size}", options)
        result[f"{CHOSEN}-{size}"] = chosen(model, held_out, folder / f"{CHOSEN}-{size}", options)
    return result


def costs_of(model: SweetModelForSequenceClassification, path: Path) -> CostTable:
    """Reads a cost table from a file, or measures it on random rows of up to 128 tokens and writes it."""
    if not path.is_file():
        random = np.random.default_rng(0)
        lengths = random.integers(5, MAX_LENGTH + 1, LENGTHS_MEASURED)
        batch = TokenBatch.from_rows([random.integers(1000, 20000, length).tolist() for length in lengths])
        table = measure_costs(model, batch, (1, 8, 32), model.policy.criterion)
        path.write_text(json.dumps(table.to_dict()) + "\n", encoding="utf-8")
    record = json.loads(path.read_text(encoding="utf-8"))
    return CostTable(
        tuple(record.pop("batch_sizes")),
        tuple(record.pop("lengths")),
        np.array(record.pop("through")),
        np.array(record.pop("probe")),
        np.array(record.pop("on_real_rows")),
        record,
    )


def certified(
    model: SweetModelForSequenceClassification, rows: Rows, score: float, target: Path, options: dict[str, Any]
) -> dict[str, Any]:
    """Calibrates with a guarantee against the plain model; without one, writes the policy that never exits early.

    Args:
        score: accuracy of the plain model.
        target: folder to write to.
        options: of `calibrate`.
    """
    try:
        found = calibrate(model, rows, Budget(max_accuracy_drop=(1 - KEPT) * score), **options)
    except (CalibrationError, InputError) as error:
        copy_artifact(model.artifact, target, model.policy.with_threshold(1.0))
        return {"refused": str(error)}
    found.write(model.artifact, target)
    static = found.static_alternative
    return {
        **_figures(found, found.chosen),
        "bound": found.bound,
        "certified": found.certified,
        "static alternative": None if static is None else static[0],
    }


def chosen(
    model: SweetModelForSequenceClassification, rows: Rows, target: Path, options: dict[str, Any]
) -> dict[str, Any]:
    """Writes the cheapest candidate that keeps `KEPT`, or the most accurate one if none does.

    The candidates come from the tuning rows, and are judged on the testing rows.
    """
    found = calibrate(model, rows, Budget(max_accuracy_drop=_EVERY_CANDIDATE), **options)
    enough = KEPT * found.against["score"]
    good = [place for place, each in enumerate(found.candidates) if each.score >= enough]
    good = good or [max(range(len(found.candidates)), key=lambda place: found.candidates[place].score)]
    best = min(good, key=lambda place: found.candidates[place].cost)
    copy_artifact(model.artifact, target, found.candidates[best].policy)
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
