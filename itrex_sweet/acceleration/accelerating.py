"""Accelerates a fine-tuned classifier with unlabelled texts: adds exits, quantizes, prunes, calibrates, measures."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.acceleration.adding import add_exits
from itrex_sweet.acceleration.checkpoint import open_checkpoint, require_other_folder
from itrex_sweet.acceleration.report import PICTURE_FILE, REPORT_FILE, Measurements, measure
from itrex_sweet.acceleration.steps import Steps
from itrex_sweet.acceleration.traffic import check_enough_texts, min_rows, read_traffic, split_traffic
from itrex_sweet.arguments import non_negative_number, whole_number
from itrex_sweet.artifact import Artifact, copy_artifact, open_artifact
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.calibration.budget import Budget, checked_tolerance
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.calibration.pruning import prune_exits, remove_unused_exits
from itrex_sweet.config import resolve_exits
from itrex_sweet.data import Rows
from itrex_sweet.defaults import (
    DEFAULT_AGREEMENT_DROP,
    DEFAULT_CONFIDENCE,
    DEFAULT_EPOCHS,
    DEFAULT_LEARNING_RATE,
    DEFAULT_TRAINING_BATCH_SIZE,
    DEFAULT_TRAINING_SEED,
    MIN_SPEEDUP,
)
from itrex_sweet.errors import NoGainError, QuantizationError
from itrex_sweet.extras import install_command, is_installed
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.version import __version__
from itrex_sweet.warning_once import warnings_once

logger = logging.getLogger(__name__)

STEPS_FOLDER = "steps"
_MAX_DEPTH_OF_EVERY_LAYER = 12


@dataclass(frozen=True)
class Acceleration:
    """The result of `accelerate`.

    Args:
        artifact: the calibrated artifact.
        budget: the certified drop of agreement.
        measured: time and agreement on held-out texts.
        least_speedup: minimum speed-up of early exit over full depth.
    """

    artifact: Artifact
    budget: Budget
    measured: Measurements
    least_speedup: float

    @property
    def pays(self) -> bool:
        """`True` if the speed-up of early exit over full depth is at least `least_speedup`."""
        return self.measured.over_full_depth >= self.least_speedup


@warnings_once()
def accelerate(
    model: str | os.PathLike,
    traffic: Any,
    output: str | os.PathLike,
    *,
    max_agreement_drop: float = DEFAULT_AGREEMENT_DROP,
    tolerance: float | None = None,
    confidence: float = DEFAULT_CONFIDENCE,
    least_speedup: float = MIN_SPEEDUP,
    exits: Iterable[int] | None = None,
    quantize: bool = True,
    epochs: float = DEFAULT_EPOCHS,
    learning_rate: float = DEFAULT_LEARNING_RATE,
    batch_size: int = DEFAULT_TRAINING_BATCH_SIZE,
    max_length: int | None = None,
    threads: int | None = None,
    seed: int = DEFAULT_TRAINING_SEED,
    limit: int | None = None,
    **columns: Any,
) -> Acceleration:
    """Adds exits to a fine-tuned classifier, quantizes it, prunes exits that save no time, and calibrates.

    The texts are split into four disjoint parts: for training the exits, for quantization and pruning, for calibration,
    and for the final measurement. A later call with the same inputs skips completed steps, whose artifacts are in
    `output/steps`.

    Args:
        model: folder of a Hugging Face classifier, or its name on the hub.
        traffic: texts, as for `add_exits`; labels are ignored.
        output: folder of the artifact, with its card, `curve.png` and `acceleration.json`.
        max_agreement_drop: maximum share of texts that get another label than at full depth, or in a regression a value
            that differs from that of full depth by more than `tolerance`.
        tolerance: difference up to which values agree, in the unit of the labels; a regression needs one.
        confidence: confidence level of that guarantee.
        least_speedup: minimum speed-up of early exit over full depth.
        exits: exits to train, as counts of layers; by default every layer, or every second one of more than 12.
        quantize: quantize to INT8, if Neural Compressor is installed.
        epochs, learning_rate, batch_size, max_length: training arguments, as for `add_exits`.
        threads: maximum number of threads.
        seed: seed of the split and of training.
        limit: maximum number of texts to read.
        columns: `text_column`, `pair_column`, `split`, `dataset_config`, as in `itrex_sweet.data.read_rows`.

    Raises:
        CalibrationError: the agreement cannot be certified with so few texts, or for these exits; the message gives the
            number of texts that is needed.
        NoGainError: no exit learned anything, or none saves time.
        ArtifactError, ConfigError, UnsupportedModelError, InputError: as `add_exits`.
    """
    least_speedup = non_negative_number("least_speedup", least_speedup)
    seed, output = whole_number("seed", seed, 0), Path(output)
    checkpoint = open_checkpoint(model)
    tolerance = checked_tolerance(checkpoint.task, tolerance)
    budget = Budget(max_agreement_drop=max_agreement_drop, confidence=confidence, tolerance=tolerance)
    requested = resolve_exits(_candidate_exits(checkpoint.depth) if exits is None else exits, checkpoint.depth)
    require_other_folder(checkpoint, output)
    require_writable(output)
    texts = read_traffic(traffic, limit, **columns)
    check_enough_texts(texts, min_rows(budget), f"certifying a drop of at most {100 * budget.epsilon:g} %")
    parts = split_traffic(texts, seed)
    sizes = {name: len(rows) for name, rows in parts.items()}
    logger.info(
        "%d different texts: %d to train exits, %d to quantize and prune, %d to calibrate, %d to measure.",
        len(texts),
        *sizes.values(),
    )
    steps_folder = output / STEPS_FOLDER
    steps = Steps(steps_folder, 5)
    common = {"model": checkpoint.identity(), "traffic": texts.identity(), "seed": seed, "version": __version__}
    training = dict(epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_length=max_length)

    def add(folder: Path) -> Mapping[str, Any]:
        added = add_exits(checkpoint, parts["exits"], folder, exits=requested, seed=seed, **training)
        return {"dropped": list(added.dropped), "agreements": added.agreements.to_dict()}

    steps.run(
        "exits", f"adding exits after {_listed(requested)} layers", {**common, "exits": requested, **training}, add
    )
    reason = _reason_against_int8() if quantize else "not requested"
    quantizing = {"int8": reason or "yes"}
    steps.run(
        "int8",
        "quantizing to INT8" if reason is None else f"no INT8, {reason}: continuing in float32",
        quantizing,
        lambda folder: _quantize(steps_folder / "exits", parts["quantization"], folder, reason, seed, threads),
    )
    steps.run(
        "pruned",
        "pruning exits that save no time",
        {"threads": threads, **({} if tolerance is None else {"tolerance": tolerance})},
        lambda folder: _prune(steps_folder / "int8", parts["quantization"], folder, threads, tolerance),
    )
    steps.run(
        "calibrated",
        f"calibrating: at most {100 * budget.epsilon:g} % of the {_decisions(budget)} change",
        {"budget": budget.to_dict(), "threads": threads},
        lambda folder: _calibrate(steps_folder / "pruned", parts["calibration"], budget, folder, seed, threads),
    )
    measured = steps.run(
        "report",
        "measuring on held-out texts",
        {"output": str(output.resolve()), "threads": threads},
        lambda folder: measure(steps_folder / "calibrated", checkpoint, parts["report"], folder, threads).to_dict(),
        output,
    )
    return Acceleration(open_artifact(output), budget, Measurements.from_dict(measured), least_speedup)


def _candidate_exits(depth: int) -> tuple[int, ...]:
    """Returns the exits to train: after every layer, or after every second one. Pruning keeps the useful ones."""
    step = 1 if depth <= _MAX_DEPTH_OF_EVERY_LAYER else 2
    return tuple(sorted({*range(step, depth, step), depth}))


def _reason_against_int8() -> str | None:
    """Returns the reason not to quantize on this machine, or `None`."""
    from itrex_sweet.runtime.backends import unavailable_reason

    if not is_installed("neural_compressor"):
        return f"Neural Compressor is not installed ({install_command('quantize')})"
    if unavailable_reason("native") is not None:
        return "the native engine, which runs INT8 fast, is not available"
    return None


def _quantize(
    source: Path, rows: Rows, folder: Path, reason: str | None, seed: int, threads: int | None
) -> Mapping[str, Any]:
    from itrex_sweet.quantization import SweetQuantizer

    if reason is None:
        try:
            artifact = SweetQuantizer.from_pretrained(source, threads=threads).quantize(rows, folder, seed=seed)
            return {"precision": artifact.precision, "recipe": artifact.quantization.get("recipe")}
        except QuantizationError as error:
            logger.warning("INT8 loses too much accuracy, continuing in float32. %s", error)
    return {"precision": copy_artifact(open_artifact(source), folder).precision}


def _prune(source: Path, rows: Rows, folder: Path, threads: int | None, tolerance: float | None) -> Mapping[str, Any]:
    artifact, gains = prune_exits(source, folder, data=rows, threads=threads, tolerance=tolerance)
    logger.info("%s", gains.table())
    if len(artifact.exits) == 1:
        raise NoGainError(
            f"no exit saves time: none saves {100 * gains.least_gain:g} % of what full depth costs under a policy that "
            f"changes at most {100 * gains.max_drop:g} % of the answers. {source} is no faster with exits than at "
            "full depth. More texts, or more epochs, may give better exits."
        )
    return {"exits": list(artifact.exits)}


def _calibrate(
    source: Path, rows: Rows, budget: Budget, folder: Path, seed: int, threads: int | None
) -> Mapping[str, Any]:
    model = SweetModelForSequenceClassification.from_pretrained(source, threads=threads)
    calibration = calibrate(model, rows, budget, seed=seed)
    written = remove_unused_exits(calibration.write(model.artifact, folder))
    chosen = calibration.candidates[calibration.chosen]
    return {"exits": list(written.exits), "layers": chosen.mean_layers, "rows_testing": calibration.rows[1]}


def _decisions(budget: Budget) -> str:
    return "labels" if budget.tolerance is None else f"values by more than {budget.tolerance:g}"


def _listed(exits: Iterable[int]) -> str:
    return ", ".join(map(str, exits))


__all__ = ["PICTURE_FILE", "REPORT_FILE", "Acceleration", "accelerate"]
