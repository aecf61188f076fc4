"""A plain classifier and a file of traffic in; the same classifier, faster, and certified to agree with itself, out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.acceleration.adding import BATCH_SIZE, EPOCHS, LEARNING_RATE, add_exits
from itrex_sweet.acceleration.checkpoint import open_checkpoint
from itrex_sweet.acceleration.report import PICTURE_FILE, REPORT_FILE, Measured, measure
from itrex_sweet.acceleration.steps import Steps
from itrex_sweet.acceleration.traffic import dealt, min_rows, read_traffic, refuse_too_few
from itrex_sweet.arguments import real_number, whole_number
from itrex_sweet.artifact import Artifact, copy_artifact, open_artifact
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.calibration.pruning import prune_exits, remove_unused_exits
from itrex_sweet.config import resolve_exits
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, NoGainError, QuantizationError
from itrex_sweet.extras import install_command, is_installed
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.version import __version__

logger = logging.getLogger(__name__)

STEPS_FOLDER = "steps"
LEAST_SPEEDUP = 1.2
_EVERY_LAYER_UP_TO = 12


@dataclass(frozen=True)
class Acceleration:
    """A classifier that was made faster.

    Args:
        artifact: the folder, ready to use.
        budget: the drop of agreement that is certified.
        measured: time and agreement on texts that had no part in making it.
        least_speedup: below which leaving early does not pay.
    """

    artifact: Artifact
    budget: Budget
    measured: Measured
    least_speedup: float

    @property
    def pays(self) -> bool:
        """True if leaving early is as much faster than full depth as was asked for."""
        return self.measured.over_full_depth >= self.least_speedup


def accelerate(
    model: str | os.PathLike,
    traffic: Any,
    output: str | os.PathLike,
    *,
    max_agreement_drop: float = 0.01,
    confidence: float = 0.95,
    least_speedup: float = LEAST_SPEEDUP,
    exits: Iterable[int] | None = None,
    quantize: bool = True,
    epochs: float = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
    max_length: int | None = None,
    threads: int | None = None,
    seed: int = 42,
    limit: int | None = None,
    **columns: Any,
) -> Acceleration:
    """Adds exits to a plain fine-tuned classifier, quantizes, removes exits that do not pay, and calibrates.

    The texts are dealt into four parts that share none: exits learn from the first, the second is for INT8 and for
    judging exits, the third chooses and certifies the policy, and figures are measured on the fourth. Steps that are
    done are not done again by a later call with the same inputs; their artifacts lie in `output/steps`.

    Args:
        model: folder of a Hugging Face classifier, or its name on the hub.
        traffic: texts as they come, as for `add_exits`; labels are ignored.
        output: folder of the artifact, with its card, `curve.png` and `acceleration.json`.
        max_agreement_drop: share of texts that may get another label than at full depth.
        confidence: with which that is certified.
        least_speedup: of leaving early over full depth, below which it does not pay.
        exits: to train, counts of layers; if absent every layer, or every second one of more than 12.
        quantize: to INT8, where Neural Compressor is installed.
        epochs, learning_rate, batch_size, max_length: of training, as for `add_exits`.
        threads: to compute with at most.
        seed: of the dealing and of training.
        limit: texts read at most.
        columns: `text_column`, `pair_column`, `split`, `dataset_config`, as in `itrex_sweet.data.read_rows`.

    Raises:
        what `add_exits` raises, and
        CalibrationError: the agreement cannot be certified on so few texts, or for such exits; the message says how
            many would be enough.
        NoGainError: no exit learned anything, or none pays.
    """
    budget = Budget(max_agreement_drop=max_agreement_drop, confidence=confidence)
    least_speedup = real_number("least_speedup", least_speedup, "a number from 0")
    seed, output = whole_number("seed", seed, 0), Path(output)
    checkpoint = open_checkpoint(model)
    asked = resolve_exits(_many(checkpoint.depth) if exits is None else exits, checkpoint.depth)
    require_writable(output)
    if output.resolve() == checkpoint.folder.resolve():
        raise ConfigError(f"{output} holds the model itself: write to another folder.")
    texts = read_traffic(traffic, limit, **columns)
    refuse_too_few(texts, min_rows(budget), f"certifying a drop of at most {100 * budget.epsilon:g} %")
    parts = dealt(texts, seed)
    sizes = {name: len(rows) for name, rows in parts.items()}
    logger.info(
        "%d different texts: %d to learn from, %d to quantize and judge exits, %d to calibrate, %d to report on.",
        len(texts),
        *sizes.values(),
    )
    steps = Steps(output / STEPS_FOLDER, 5)
    common = {"model": checkpoint.identity(), "traffic": texts.identity(), "seed": seed, "version": __version__}
    training = dict(epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_length=max_length)

    def adding(folder: Path) -> Mapping[str, Any]:
        added = add_exits(checkpoint, parts["exits"], folder, exits=asked, seed=seed, **training)
        return {"dropped": list(added.dropped), "agreements": added.agreements.to_dict()}

    last = output / STEPS_FOLDER
    steps.run("exits", f"adding exits after {_listed(asked)} layers", {**common, "exits": asked, **training}, adding)
    how = _refusal_of_int8() if quantize else "not asked for"
    quantizing = {"int8": how or "yes"}
    steps.run(
        "int8",
        "quantizing to INT8" if how is None else f"no INT8, {how}: going on in float32",
        quantizing,
        lambda folder: _quantized(last / "exits", parts["quantization"], folder, how, seed, threads),
    )
    steps.run(
        "pruned",
        "removing exits that do not pay",
        {"threads": threads},
        lambda folder: _pruned(last / "int8", parts["quantization"], folder, threads),
    )
    steps.run(
        "calibrated",
        f"calibrating: at most {100 * budget.epsilon:g} % other answers",
        {"budget": budget.to_dict(), "threads": threads},
        lambda folder: _calibrated(last / "pruned", parts["calibration"], budget, folder, seed, threads),
    )
    found = steps.run(
        "report",
        "measuring on texts that had no part in it",
        {"output": str(output.resolve()), "threads": threads},
        lambda folder: measure(last / "calibrated", checkpoint, parts["report"], folder, threads).to_dict(),
        output,
    )
    return Acceleration(open_artifact(output), budget, Measured.from_dict(found), least_speedup)


def _many(depth: int) -> tuple[int, ...]:
    """Exits that cost one another nothing, so that there may be many, of which those that pay are kept."""
    step = 1 if depth <= _EVERY_LAYER_UP_TO else 2
    return tuple(sorted({*range(step, depth, step), depth}))


def _refusal_of_int8() -> str | None:
    """The reason not to quantize here, or `None`."""
    from itrex_sweet.runtime.backends import missing_for

    if not is_installed("neural_compressor"):
        return f"Neural Compressor is not installed ({install_command('quantize')})"
    if missing_for("native") is not None:
        return "the native engine, which computes it fast, cannot run here"
    return None


def _quantized(
    source: Path, rows: Rows, folder: Path, refusal: str | None, seed: int, threads: int | None
) -> Mapping[str, Any]:
    from itrex_sweet.quantization import SweetQuantizer

    if refusal is None:
        try:
            artifact = SweetQuantizer.from_pretrained(source, threads=threads).quantize(rows, folder, seed=seed)
            return {"precision": artifact.precision, "recipe": artifact.quantization.get("recipe")}
        except QuantizationError as error:
            logger.warning("INT8 would cost too much, going on in float32. %s", error)
    return {"precision": copy_artifact(open_artifact(source), folder).precision}


def _pruned(source: Path, rows: Rows, folder: Path, threads: int | None) -> Mapping[str, Any]:
    artifact, worth = prune_exits(source, folder, data=rows, threads=threads)
    logger.info("%s", worth.table())
    if len(artifact.exits) == 1:
        raise NoGainError(
            f"no exit pays: none saves {100 * worth.least_gain:g} % of what full depth costs under a policy that "
            f"changes at most {100 * worth.max_drop:g} % of the labels. The model stays as fast as {source} is at full "
            "depth. More traffic, or more epochs, may give better exits."
        )
    return {"exits": list(artifact.exits)}


def _calibrated(
    source: Path, rows: Rows, budget: Budget, folder: Path, seed: int, threads: int | None
) -> Mapping[str, Any]:
    model = SweetModelForSequenceClassification.from_pretrained(source, threads=threads)
    calibration = calibrate(model, rows, budget, seed=seed)
    written = remove_unused_exits(calibration.write(model.artifact, folder))
    chosen = calibration.candidates[calibration.chosen]
    return {"exits": list(written.exits), "layers": chosen.mean_layers, "rows_testing": calibration.rows[1]}


def _listed(exits: Iterable[int]) -> str:
    return ", ".join(map(str, exits))


__all__ = ["PICTURE_FILE", "REPORT_FILE", "Acceleration", "accelerate"]
