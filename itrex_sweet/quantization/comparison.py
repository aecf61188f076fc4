"""Compares quantized models with the float model: scores per exit, and rows that leave at another exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from itrex_sweet.artifact import Artifact
from itrex_sweet.calibration import expected_calibration_error, fit_temperature, transfer_thresholds
from itrex_sweet.calibration.temperature import as_binary
from itrex_sweet.defaults import DEFAULT_CHANGED, DEFAULT_MOVED, DEFAULT_SCORE_DROP
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import percent, plain_table, score
from itrex_sweet.metrics import pearson
from itrex_sweet.policy import Policy
from itrex_sweet.quantization.calibration_rows import CalibrationRows
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

_ROUNDING = 1e-9  # tolerance of a difference of two fractions


@dataclass(frozen=True)
class Limits:
    """Limits of the loss by quantization.

    Args:
        drop: of the score at any exit, a fraction: 0.01 is one point.
        moved: fraction of rows that leave at another exit than before.
        changed: fraction of rows whose answer at the last exit changes. A faster recipe that exceeds it is taken only
            if no other one changes fewer.
    """

    drop: float = DEFAULT_SCORE_DROP
    moved: float = DEFAULT_MOVED
    changed: float = DEFAULT_CHANGED


@dataclass(frozen=True)
class ComparisonResult:
    """A quantized model compared with the float model.

    Args:
        recipe: of its quantization.
        float_layers: module paths left in float.
        scores: per exit, accuracy, or without labels agreement with the float model; of the sets of labels in
            multi-label classification; in regression, the correlation of the values with the labels or the float model.
        drops: per exit, score of the float model minus its own.
        moved: fraction of rows that leave at another exit.
        changed: fraction of rows whose answer at the last exit differs from that of the float model; 0 in regression.
        policy: for the quantized model, with temperatures fitted again if there are labels, and thresholds at which the
            exit rates stay the same.
        calibration_errors: expected calibration error per exit, with the old and with the new temperatures; `None`
            without labels.
    """

    recipe: str
    float_layers: tuple[str, ...]
    scores: tuple[float, ...]
    drops: tuple[float, ...]
    moved: float
    changed: float
    policy: Policy
    calibration_errors: tuple[tuple[float, ...], tuple[float, ...]] | None

    def within(self, limits: Limits) -> bool:
        """Returns true if no limit is exceeded."""
        return max(self.drops) <= limits.drop + _ROUNDING and self.moved <= limits.moved + _ROUNDING


class ExitComparison:
    """Compares quantized models with the float one.

    Args:
        artifact: float32.
        rows: their evaluation part is used.
        batch_size: rows per batch.
    """

    def __init__(self, artifact: Artifact, rows: CalibrationRows, batch_size: int):
        self.artifact, self.rows, self.batch_size = artifact, rows, batch_size
        self.before = self.observe(None, "float32")
        predictions = self.before.predictions(artifact.policy)
        self._targets = predictions if rows.labels is None else rows.labels[:, None]
        self.scores = self._scores(self.before)

    @property
    def metric_name(self) -> str:
        """Name of the score."""
        if self.artifact.task.name == REGRESSION:
            return "pearson with float32" if self.rows.labels is None else "pearson"
        if self.rows.labels is None:
            return "agreement with float32"
        return "exact match" if self.artifact.task.name == MULTI_LABEL else "accuracy"

    def observe(self, encoder: Encoder | None, description: str, rows: int | None = None) -> ExitOutcomes:
        """Runs the first rows, or all rows, through all exits.

        Args:
            encoder: weights; the artifact's own if absent.
            description: of the progress bar.
        """
        batch = self.rows.evaluated
        if rows is not None and rows < len(batch):
            batch = batch.select(np.arange(rows))
        executor = Executor(_backend(self.artifact, encoder), self.artifact.policy, self.batch_size)
        labels = None if self.rows.labels is None else self.rows.labels[: len(batch)]
        return ExitOutcomes.from_executor(executor, batch, labels, description)

    def compare(self, encoder: Encoder, recipe: str, float_layers: Sequence[str] = ()) -> ComparisonResult:
        """Compares one quantized model with the float model."""
        after = self.observe(encoder, recipe)
        old_policy, labels = self.artifact.policy, self.rows.labels
        temperatures, errors = old_policy.temperatures, None
        if labels is not None and self.artifact.task.has_temperatures:
            is_multi_label = self.artifact.task.name == MULTI_LABEL
            pairs = [
                as_binary(after.logits[:, index], labels) if is_multi_label else (after.logits[:, index], labels)
                for index in range(len(self.artifact.exits))
            ]
            temperatures = tuple(fit_temperature(*pair) for pair in pairs)
            errors = tuple(
                tuple(expected_calibration_error(*pair, value) for pair, value in zip(pairs, fitted, strict=True))
                for fitted in (old_policy.temperatures, temperatures)
            )
        policy = transfer_thresholds(old_policy, self.before, after, temperatures)
        scores = self._scores(after)
        exits_before, exits_after = self.before.leaving(old_policy), after.leaving(policy)
        return ComparisonResult(
            recipe=recipe,
            float_layers=tuple(float_layers),
            scores=scores,
            drops=tuple(float(old - new) for old, new in zip(self.scores, scores, strict=True)),
            moved=float((exits_before != exits_after).mean()),
            changed=self._changed(after),
            policy=policy,
            calibration_errors=errors,
        )

    def table(self, results: Sequence[ComparisonResult]) -> str:
        """Returns the scores per exit of the float model and the quantized models, as text."""
        exits = (f"exit {exit_}" for exit_ in self.artifact.exits)
        headings = ["recipe", *exits, "other exit", "other answer", "float layers"]
        lines = [["float32", *self._shown(self.scores), percent(0.0), percent(0.0), "all"]]
        lines += [
            [
                result.recipe,
                *self._shown(result.scores),
                percent(result.moved),
                percent(result.changed),
                str(len(result.float_layers)),
            ]
            for result in results
        ]
        return plain_table(headings, lines)

    def record(self, result: ComparisonResult) -> dict[str, Any]:
        """Returns the artifact's record, in plain JSON types."""
        rounded = lambda values: [round(float(value), 4) for value in values]  # noqa: E731
        facts = {
            "metric": self.metric_name,
            "exits": list(self.artifact.exits),
            "before": rounded(self.scores),
            "after": rounded(result.scores),
            "rows_at_another_exit": round(result.moved, 4),
            "changed_answers": round(result.changed, 4),
            "temperatures": {
                "before": rounded(self.artifact.policy.temperatures),
                "after": rounded(result.policy.temperatures),
            },
        }
        if result.calibration_errors is not None:
            before, after = result.calibration_errors
            facts["expected_calibration_error"] = {"old temperatures": rounded(before), "fitted": rounded(after)}
        return facts

    def _scores(self, outcomes: ExitOutcomes) -> tuple[float, ...]:
        predictions, task = outcomes.predictions(self.artifact.policy), outcomes.task
        if task.name == REGRESSION:
            targets = np.broadcast_to(self._targets, predictions.shape)
            return tuple(pearson(*pair) for pair in zip(predictions.T, targets.T, strict=True))
        if task.name == SINGLE_LABEL:
            return tuple((predictions == self._targets).mean(axis=0).tolist())
        return tuple(task.agree(predictions, self._targets).mean(axis=0).tolist())

    def _changed(self, after: ExitOutcomes) -> float:
        """Returns the fraction of rows whose answer at the last exit changes."""
        task = after.task
        if task.name == REGRESSION:
            return 0.0
        old, new = (outcomes.predictions(self.artifact.policy)[:, -1] for outcomes in (self.before, after))
        return float(1.0 - task.agree(old, new).mean())

    def _shown(self, scores: Sequence[float]) -> list[str]:
        return [score(value, self.metric_name) for value in scores]


def _backend(artifact: Artifact, encoder: Encoder | None) -> Backend:
    """Returns the native backend, or the reference where it cannot run: the reference emulates INT8 slowly."""
    try:
        return NativeBackend(artifact, encoder, torch.get_num_threads())
    except BackendUnavailable:
        return TorchBackend(artifact, encoder)
