"""Compares a quantized model with the float model: the score of every exit, and rows that change their exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.calibration import expected_calibration_error, fit_temperature, transfer_thresholds
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.tables import percent, plain_table
from itrex_sweet.quantization.calibration_rows import CalibrationRows
from itrex_sweet.runtime.backends.torch import TorchBackend
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.executor import Executor

_ROUNDING = 1e-9  # of a difference of two shares, so that five rows of 500 are one point


@dataclass(frozen=True)
class Limits:
    """Limits of the loss by quantization.

    Args:
        drop: of the score at any exit, as a share: 0.01 is one point.
        moved: share of rows that leave at another exit than before.
    """

    drop: float = 0.01
    moved: float = 0.1


@dataclass(frozen=True)
class ComparisonResult:
    """One quantized model on the judged rows.

    Args:
        recipe: how it was quantized.
        float_layers: module paths kept in float.
        scores: per exit: accuracy, or without labels, agreement with the float model.
        drops: per exit, what is missing to the float model's score.
        moved: share of rows that leave at another exit.
        policy: for the quantized model: temperatures fitted anew where there are labels, thresholds moved so that the
            same share of rows leaves at each exit.
        calibration_errors: per exit (expected calibration error), under the old temperatures and the new; `None`
            without labels.
    """

    recipe: str
    float_layers: tuple[str, ...]
    scores: tuple[float, ...]
    drops: tuple[float, ...]
    moved: float
    policy: Policy
    calibration_errors: tuple[tuple[float, ...], tuple[float, ...]] | None

    def within(self, limits: Limits) -> bool:
        """Returns `True` if the drop of every exit and the share of rows at another exit are within the limits."""
        return max(self.drops) <= limits.drop + _ROUNDING and self.moved <= limits.moved + _ROUNDING


class ExitComparison:
    """Compares quantized models with the float one.

    Args:
        artifact: float32.
        rows: on which; the judged part is used.
        batch_size: rows computed together.
    """

    def __init__(self, artifact: Artifact, rows: CalibrationRows, batch_size: int):
        self.artifact, self.rows, self.batch_size = artifact, rows, batch_size
        self.before = self.observe(None, "float32")
        predictions = self.before.predictions()
        self._truth = predictions if rows.labels is None else rows.labels[:, None]
        self.scores = self._scores(self.before)

    @property
    def metric_name(self) -> str:
        """Of what the scores are."""
        return "agreement with float32" if self.rows.labels is None else "accuracy"

    def observe(self, encoder: Encoder | None, description: str, rows: int | None = None) -> ExitOutcomes:
        """Computes the logits of every exit for the first rows, or all.

        Args:
            encoder: the weights; the artifact's own if absent.
            description: of the progress bar.
        """
        batch = self.rows.judged
        if rows is not None and rows < len(batch):
            batch = batch.select(np.arange(rows))
        backend = TorchBackend(self.artifact, encoder)
        executor = Executor(backend, self.artifact.policy, self.batch_size)
        labels = None if self.rows.labels is None else self.rows.labels[: len(batch)]
        return ExitOutcomes.from_executor(executor, batch, labels, description)

    def verdict(self, encoder: Encoder, recipe: str, float_layers: Sequence[str] = ()) -> ComparisonResult:
        """Judges one quantized model."""
        after = self.observe(encoder, recipe)
        old, labels = self.artifact.policy, self.rows.labels
        temperatures, errors = old.temperatures, None
        if labels is not None:
            exits = range(len(self.artifact.exits))
            temperatures = tuple(fit_temperature(after.logits[:, place], labels) for place in exits)
            errors = tuple(
                tuple(expected_calibration_error(after.logits[:, place], labels, fitted[place]) for place in exits)
                for fitted in (old.temperatures, temperatures)
            )
        policy = transfer_thresholds(old, self.before, after, temperatures)
        scores = self._scores(after)
        left_before, left_after = self.before.leaving(old), after.leaving(policy)
        return ComparisonResult(
            recipe=recipe,
            float_layers=tuple(float_layers),
            scores=scores,
            drops=tuple(float(was - is_) for was, is_ in zip(self.scores, scores, strict=True)),
            moved=float((left_before != left_after).mean()),
            policy=policy,
            calibration_errors=errors,
        )

    def table(self, verdicts: Sequence[ComparisonResult]) -> str:
        """Scores per exit of the float model and the quantized ones, as text."""
        headings = ["recipe", *(f"exit {exit_}" for exit_ in self.artifact.exits), "other exit", "float layers"]
        lines = [["float32", *map(percent, self.scores), percent(0.0), "all"]]
        lines += [
            [verdict.recipe, *map(percent, verdict.scores), percent(verdict.moved), str(len(verdict.float_layers))]
            for verdict in verdicts
        ]
        return plain_table(headings, lines)

    def record(self, verdict: ComparisonResult) -> dict[str, Any]:
        """Returns the record for the artifact, in JSON types."""
        rounded = lambda values: [round(float(value), 4) for value in values]  # noqa: E731
        facts = {
            "metric": self.metric_name,
            "exits": list(self.artifact.exits),
            "before": rounded(self.scores),
            "after": rounded(verdict.scores),
            "rows_at_another_exit": round(verdict.moved, 4),
            "temperatures": {
                "before": rounded(self.artifact.policy.temperatures),
                "after": rounded(verdict.policy.temperatures),
            },
        }
        if verdict.calibration_errors is not None:
            before, after = verdict.calibration_errors
            facts["expected_calibration_error"] = {"old temperatures": rounded(before), "fitted": rounded(after)}
        return facts

    def _scores(self, outcomes: ExitOutcomes) -> tuple[float, ...]:
        return tuple((outcomes.predictions() == self._truth).mean(axis=0).tolist())
