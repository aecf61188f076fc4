"""Figures of an accelerated classifier on texts that had no part in making it, beside the plain checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.acceleration.checkpoint import Checkpoint
from itrex_sweet.artifact import copy_artifact, open_artifact, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.bounds import LossCounts, binomial_p_value
from itrex_sweet.data import Rows
from itrex_sweet.errors import ArtifactError
from itrex_sweet.evaluation.evaluation import Evaluation, evaluate
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.plain_model import run_batches, sorted_batches
from itrex_sweet.evaluation.plot import plot_curves
from itrex_sweet.evaluation.reference import open_reference
from itrex_sweet.evaluation.timing import milliseconds_per_row
from itrex_sweet.extras import install_command, is_installed
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.torch_threads import computing_with

logger = logging.getLogger(__name__)

REPORT_FILE, PICTURE_FILE = "acceleration.json", "curve.png"
_TIMED_ROWS, _REPEATS = 256, 3
_DELTA = 0.05
_HALVINGS = 40


@dataclass(frozen=True)
class Measured:
    """Figures measured on held-out texts.

    Args:
        rows: texts.
        precision: of the artifact.
        exits: that the artifact has, counts of layers.
        mean_layers: run per text under the policy.
        agreement: share of the texts that get the label that the plain checkpoint gives.
        agreement_at_least: that share with 95 % confidence, by the exact binomial bound.
        agreement_with_full_depth: share that gets the label of the same artifact at full depth, of which the
            calibration makes its promise.
        promise_kept: whether no more than promised was lost here.
        milliseconds: per text under the policy, without tokenization.
        milliseconds_full_depth: by the same engine without leaving early.
        milliseconds_checkpoint: by transformers with the plain checkpoint in float32, texts sorted by length.
    """

    rows: int
    precision: str
    exits: tuple[int, ...]
    mean_layers: float
    agreement: float
    agreement_at_least: float
    agreement_with_full_depth: float
    promise_kept: bool | None
    milliseconds: float
    milliseconds_full_depth: float
    milliseconds_checkpoint: float

    @property
    def over_full_depth(self) -> float:
        """Speed-up over the same engine at full depth."""
        return self.milliseconds_full_depth / self.milliseconds

    @property
    def over_checkpoint(self) -> float:
        """Speed-up over the plain checkpoint, run by transformers."""
        return self.milliseconds_checkpoint / self.milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**dataclasses.asdict(self), "exits": list(self.exits)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Measured:
        """Reads what `to_dict` gave."""
        return cls(**{**facts, "exits": tuple(facts["exits"])})


def measure(source: Path, checkpoint: Checkpoint, rows: Rows, output: Path, threads: int | None) -> Measured:
    """Copies an artifact to its last place, measures it there, and writes its card, curve and figures.

    Raises:
        ArtifactError: something cannot be written.
    """
    artifact = copy_artifact(open_artifact(source), output)
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory, threads=threads)
    answers = open_reference(checkpoint.folder).answers(rows.texts, len(rows), artifact.label_names)
    evaluation = evaluate(
        model,
        rows.texts,
        answers.tolist(),
        output.name,
        metric_name="agreement",
        timed_rows=_TIMED_ROWS,
        repeats=_REPEATS,
        source=rows.source,
    )
    report = evaluation.report
    measured = Measured(
        rows=len(rows),
        precision=artifact.precision,
        exits=artifact.exits,
        mean_layers=report.mean_layers,
        agreement=report.metric,
        agreement_at_least=_at_least(report.metric, len(rows)),
        agreement_with_full_depth=report.agreement,
        promise_kept=None if evaluation.guarantee is None else evaluation.guarantee.kept,
        milliseconds=report.milliseconds,
        milliseconds_full_depth=report.exits[-1].milliseconds,
        milliseconds_checkpoint=_milliseconds_of(checkpoint, rows, threads),
    )
    data = f"{Path(rows.source).name} that had no part in making it, labelled by {checkpoint.name}"
    write_card(
        model.artifact,
        render_card(model.artifact, evaluation, data=data),
        Fingerprints.of(model.read(rows.texts).rows()),
    )
    _write(output, evaluation, measured)
    return measured


def _at_least(agreement: float, rows: int) -> float:
    """The share that a share of some rows shows with 95 % confidence: what a one-sided exact binomial test refuses
    below (Clopper and Pearson 1934)."""
    counts = LossCounts(round((1.0 - agreement) * rows), 0, rows)
    low, high = counts.mean_loss, 1.0 - 1e-12
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if middle > 0.0 and binomial_p_value(counts, middle) <= _DELTA else (middle, high)
    return 1.0 - high


def _milliseconds_of(checkpoint: Checkpoint, rows: Rows, threads: int | None) -> float:
    """Per text, of the plain model by transformers, without tokenization."""
    model, tokenizer = checkpoint.load()
    chosen = np.random.default_rng(0).permutation(len(rows))[:_TIMED_ROWS]
    batches = sorted_batches(model, tokenizer, [rows.texts[place] for place in chosen])
    with computing_with(threads):
        task = {"checkpoint": functools.partial(run_batches, model, batches)}
        return milliseconds_per_row(task, len(chosen), _REPEATS)["checkpoint"]


def _write(output: Path, evaluation: Evaluation, measured: Measured) -> None:
    if not is_installed("matplotlib"):
        logger.warning("matplotlib is not installed, so there is no %s: %s.", PICTURE_FILE, install_command("plot"))
    else:
        plot_curves(
            {evaluation.name: evaluation.curve},
            output / PICTURE_FILE,
            f"agreement with the checkpoint, {measured.rows} texts",
            {evaluation.name: evaluation.report},
        )
    contents = json.dumps({"measured": measured.to_dict(), "evaluation": evaluation.to_dict()}, indent=2)
    try:
        (output / REPORT_FILE).write_text(contents + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"cannot write {output / REPORT_FILE} ({error}).") from error
