"""Measures an accelerated classifier on held-out texts, and compares it with the original checkpoint."""

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
from itrex_sweet.artifact import Artifact, copy_artifact, open_artifact, write_card
from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.bounds import binomial_p_value
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.data import Rows
from itrex_sweet.errors import ArtifactError
from itrex_sweet.evaluation.evaluation import Evaluation, evaluate
from itrex_sweet.evaluation.label_agreement import LabelAgreement, lost_labels, warn_of_lost_labels
from itrex_sweet.evaluation.model_card import render_card
from itrex_sweet.evaluation.plain_model import run_batches, sorted_batches
from itrex_sweet.evaluation.plot import plot_curves
from itrex_sweet.evaluation.reference import open_reference
from itrex_sweet.evaluation.timing import milliseconds_per_row
from itrex_sweet.extras import install_command, is_installed
from itrex_sweet.metrics import Metric
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.torch_threads import computing_with

logger = logging.getLogger(__name__)

REPORT_FILE, PICTURE_FILE = "acceleration.json", "curve.png"
_DELTA = 0.05
_BISECTIONS = 40


@dataclass(frozen=True)
class Measurements:
    """Agreement and time on held-out texts.

    Args:
        rows: number of texts.
        precision: precision of the artifact.
        exits: exits of the artifact, counts of layers.
        mean_layers: mean number of layers per text under the policy.
        agreement: share of the texts with the label of the original checkpoint; in a regression, with a value that
            differs by at most the policy's tolerance.
        agreement_at_least: lower bound of that share with 95 % confidence (exact binomial).
        agreement_with_full_depth: share of the texts with the label of the artifact at full depth, which the
            calibration guarantees.
        guarantee_holds: `True` if the measured drop is within the guarantee.
        labels: agreement with the original checkpoint per label that it predicts; empty for a regression.
        milliseconds: per text under the policy, without tokenization.
        milliseconds_full_depth: per text of the same engine at full depth.
        milliseconds_checkpoint: per text of transformers with the original checkpoint in float32, texts sorted by
            length.
    """

    rows: int
    precision: str
    exits: tuple[int, ...]
    mean_layers: float
    agreement: float
    agreement_at_least: float
    agreement_with_full_depth: float
    guarantee_holds: bool | None
    milliseconds: float
    milliseconds_full_depth: float
    milliseconds_checkpoint: float
    labels: tuple[LabelAgreement, ...] = ()

    @property
    def lost_labels(self) -> tuple[LabelAgreement, ...]:
        """Labels whose texts get another label far more often than other texts."""
        return lost_labels(self.labels)

    @property
    def over_full_depth(self) -> float:
        """Speed-up over the same engine at full depth."""
        return self.milliseconds_full_depth / self.milliseconds

    @property
    def over_checkpoint(self) -> float:
        """Speed-up over the original checkpoint, run by transformers."""
        return self.milliseconds_checkpoint / self.milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types."""
        facts = {**dataclasses.asdict(self), "exits": list(self.exits)}
        facts["labels"] = [each.to_dict() for each in self.labels]
        return {**facts, "lost_labels": [each.label for each in self.lost_labels]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurements:
        """Creates it from the output of `to_dict`."""
        facts = {name: value for name, value in values.items() if name != "lost_labels"}
        labels = tuple(map(LabelAgreement.from_dict, values.get("labels", ())))
        return cls(**{**facts, "exits": tuple(values["exits"]), "labels": labels})


def measure(source: Path, checkpoint: Checkpoint, rows: Rows, output: Path, threads: int | None) -> Measurements:
    """Copies an artifact to its output folder, measures it, and writes its card, curve and measurements.

    Raises:
        ArtifactError: a file cannot be written.
    """
    artifact = copy_artifact(open_artifact(source), output)
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory, threads=threads)
    reference = open_reference(checkpoint.folder)
    labels = reference.answers(rows.texts, len(rows), artifact.label_names, artifact.task)
    evaluation = evaluate(
        model,
        rows.texts,
        labels,
        output.name,
        metric=_agreement(artifact),
        metric_name="agreement",
        source=rows.source,
    )
    report = evaluation.report
    measured = Measurements(
        rows=len(rows),
        precision=artifact.precision,
        exits=artifact.exits,
        mean_layers=report.mean_layers,
        agreement=report.metric,
        agreement_at_least=_agreement_lower_bound(report.metric, len(rows)),
        agreement_with_full_depth=report.agreement,
        guarantee_holds=None if evaluation.guarantee is None else evaluation.guarantee.holds,
        milliseconds=report.milliseconds,
        milliseconds_full_depth=report.exits[-1].milliseconds,
        milliseconds_checkpoint=_checkpoint_milliseconds(checkpoint, rows, evaluation.timing["rows"], threads),
        labels=report.truth,  # the rows are labelled by the checkpoint
    )
    warn_of_lost_labels(output.name, measured.labels, checkpoint.name)
    data = f"{Path(rows.source).name} (held out), labelled by {checkpoint.name}"
    write_card(
        model.artifact,
        render_card(model.artifact, evaluation, data=data),
        Fingerprints.of(model.read(rows.texts).rows()),
    )
    _write(output, evaluation, measured)
    return measured


def _agreement(artifact: Artifact) -> Metric:
    """Returns the metric of predictions and the checkpoint's answers: the share of rows in which they agree."""

    def share(predictions: np.ndarray, answers: np.ndarray) -> float:
        return float(artifact.task.agree(predictions, answers, artifact.policy.tolerance).mean())

    return share


def _agreement_lower_bound(agreement: float, rows: int) -> float:
    """Returns the lower bound of the agreement with 95 % confidence, by a one-sided exact binomial test (Clopper and
    Pearson 1934).
    """
    counts = LossCounts(round((1.0 - agreement) * rows), 0, rows)
    low, high = counts.mean_loss, 1.0 - 1e-12
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if middle > 0.0 and binomial_p_value(counts, middle) <= _DELTA else (middle, high)
    return 1.0 - high


def _checkpoint_milliseconds(checkpoint: Checkpoint, rows: Rows, timed_rows: int, threads: int | None) -> float:
    """Measures the milliseconds per text of the original model with transformers, without tokenization."""
    model, tokenizer = checkpoint.load()
    chosen = np.random.default_rng(0).permutation(len(rows))[:timed_rows]
    batches = sorted_batches(model, tokenizer, [rows.texts[place] for place in chosen])
    with computing_with(threads):
        task = {"checkpoint": functools.partial(run_batches, model, batches)}
        return milliseconds_per_row(task, len(chosen))["checkpoint"]


def _write(output: Path, evaluation: Evaluation, measured: Measurements) -> None:
    if not is_installed("matplotlib"):
        logger.warning("%s needs matplotlib, which is not installed: %s.", PICTURE_FILE, install_command("plot"))
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
