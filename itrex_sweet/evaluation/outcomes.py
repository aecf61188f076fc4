"""What every exit says about every row: computed once, and any policy can be tried on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.errors import InputError
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification

# (predictions, labels), both (rows,) int64 → a figure where more is better; a prediction of -1 is no answer.
Metric = Callable[[np.ndarray, np.ndarray], float]

NO_ANSWER = -1
_BATCHES_AT_ONCE = 8


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of predictions that are right; a row without an answer is not."""
    return float((predictions == labels).mean())


@dataclass(frozen=True)
class ExitOutcomes:
    """Logits of every exit for every row, and what the rows should have been.

    Args:
        logits: (rows, exits, labels) float32.
        labels: (rows,) int64.
        exits: counts of encoder layers, from 1.
        layers_run: layers that a row has cost when it leaves at each exit.
    """

    logits: np.ndarray
    labels: np.ndarray
    exits: tuple[int, ...]
    layers_run: tuple[int, ...]

    @classmethod
    def observe(
        cls, model: SweetModelForSequenceClassification, batch: TokenBatch, labels: Sequence[int]
    ) -> ExitOutcomes:
        """Runs a model to its last exit for every row.

        Args:
            batch: texts, read with `model.read(texts)`.
            labels: (rows,) label ids from 0.

        Raises:
            InputError: not one label per row, none at all, or a label that the model does not know.
        """
        labels = np.asarray(labels, dtype=np.int64)
        if len(labels) != len(batch) or len(labels) == 0:
            raise InputError(
                f"{len(labels)} labels for {len(batch)} texts: evaluation needs one each, of one at least."
            )
        bad = np.flatnonzero((labels < 0) | (labels >= model.config.num_labels))
        if len(bad):
            raise InputError(
                f"label {labels[bad[0]]} of row {bad[0]}: the model's labels go from 0 to "
                f"{model.config.num_labels - 1}.",
                tuple(bad.tolist()),
            )
        logits = logits_at_every_exit(model.executor, batch)
        return cls(logits, labels, model.artifact.exits, model.artifact.layers_run)

    def __len__(self) -> int:
        return len(self.labels)

    def confidences(self, policy: Policy) -> np.ndarray:
        """(rows, exits) float32, by the policy's criterion; NaN where logits are not finite."""
        return criteria.confidence_at_every_exit(policy, self.logits)

    def leaving(self, policy: Policy) -> np.ndarray:
        """(rows,) int64: place of the exit, from 0, at which each row leaves, as the executor decides."""
        return criteria.leaving_exit(policy, self.confidences(policy))

    def predictions(self) -> np.ndarray:
        """(rows, exits) int64: label that each exit would give; -1 where its logits are not finite."""
        return predictions_of(self.logits)

    def answers(self, policy: Policy) -> np.ndarray:
        """(rows,) int64: label that each row gets under a policy; -1 where there is none."""
        return np.take_along_axis(self.predictions(), self.leaving(policy)[:, None], axis=1)[:, 0]

    def mean_layers(self, policy: Policy) -> float:
        """Layers run per row under a policy."""
        return float(np.asarray(self.layers_run, dtype=np.float64)[self.leaving(policy)].mean())


def predictions_of(logits: np.ndarray) -> np.ndarray:
    """(rows, exits) int64: label of logits (rows, exits, labels); -1 where they are not finite."""
    answered = np.isfinite(logits).all(axis=2)
    return np.where(answered, np.where(answered[..., None], logits, 0).argmax(axis=2), NO_ANSWER)


def logits_at_every_exit(executor: Executor, batch: TokenBatch, description: str = "every exit") -> np.ndarray:
    """As `Executor.logits_at_every_exit`, with a progress bar.

    Args:
        description: left of the bar.
    """
    logits = np.empty((len(batch), executor.num_exits, executor.backend.num_labels), dtype=np.float32)
    order = np.argsort(batch.lengths, kind="stable")
    size = _BATCHES_AT_ONCE * executor.batch_size
    for start in progress(range(0, len(order), size), description, unit="batch"):
        rows = order[start : start + size]
        logits[rows] = executor.logits_at_every_exit(batch.select(rows))
    return logits
