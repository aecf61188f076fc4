"""What every exit says about every row: computed once, and any policy can be tried on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.config import Policy
from itrex_sweet.errors import InputError
from itrex_sweet.evaluation.labels import checked_labels
from itrex_sweet.evaluation.metrics import NO_ANSWER
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification

_BATCHES_AT_ONCE = 8


@dataclass(frozen=True)
class ExitOutcomes:
    """Logits of every exit for every row, and what the rows should have been.

    Args:
        logits: (rows, exits, labels) float32.
        labels: (rows,) int64.
        exits: counts of encoder layers, from 1.
        layers_run: layers that a row has cost when it leaves at each exit.
        certainties: (rows, exits) float32, where exits learned to exit: what each says of being right.
    """

    logits: np.ndarray
    labels: np.ndarray
    exits: tuple[int, ...]
    layers_run: tuple[int, ...]
    certainties: np.ndarray | None = None

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
        if not len(batch):
            raise InputError("there are no texts: evaluation needs one at least.")
        labels = checked_labels(labels, len(batch), model.config.num_labels, "the evaluated texts")
        logits, certainties = said_at_every_exit(model.executor, batch)
        return cls(logits, labels, model.artifact.exits, model.artifact.layers_run, certainties)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> ExitOutcomes:
        """Those of the rows named, in that order."""
        certainties = None if self.certainties is None else self.certainties[rows]
        return ExitOutcomes(self.logits[rows], self.labels[rows], self.exits, self.layers_run, certainties)

    def confidences(self, policy: Policy) -> np.ndarray:
        """(rows, exits) float32, by the policy's criterion; NaN where logits are not finite."""
        return criteria.confidence_at_every_exit(policy, self.logits, self.certainties)

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


def said_at_every_exit(
    executor: Executor, batch: TokenBatch, description: str = "every exit"
) -> tuple[np.ndarray, np.ndarray | None]:
    """What every exit says of every row, none leaving early, with a progress bar.

    Args:
        description: left of the bar.

    Returns:
        logits (rows, exits, labels) float32, and certainties (rows, exits) float32 where exits learned to exit.
    """
    outputs = np.empty((len(batch), executor.num_exits, executor.backend.num_outputs), dtype=np.float32)
    order = np.argsort(batch.lengths, kind="stable")
    size = _BATCHES_AT_ONCE * executor.batch_size
    for start in progress(range(0, len(order), size), description, unit="batch"):
        rows = order[start : start + size]
        outputs[rows] = executor.outputs_at_every_exit(batch.select(rows))
    return criteria.apart(outputs, executor.backend.num_labels)
