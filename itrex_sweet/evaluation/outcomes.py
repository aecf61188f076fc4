"""Outputs of every exit for every row: computed once, and reused to evaluate any policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from itrex_sweet import criteria
from itrex_sweet.errors import InputError
from itrex_sweet.evaluation.labels import checked_labels
from itrex_sweet.evaluation.progress import progress
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tasks import MULTI_LABEL, SINGLE_LABEL, TASKS, Task

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification

NO_LABEL = -1

_BATCHES_AT_ONCE = 8


@dataclass(frozen=True)
class ExitOutcomes:
    """Logits of every exit for every row, and the rows' labels.

    Args:
        logits: (rows, exits, labels) float32.
        labels: (rows,) int64; for multi-label classification (rows, labels) of ones and zeros, for regression (rows,)
            float32. `NO_LABEL` for rows without labels.
        exits: counts of encoder layers, from 1.
        layers_run: layers that are run for a row that leaves at each exit.
        correctness_logits: (rows, exits) float32, of exits that learned to exit: the logit of the exit being correct.
        confidence_of: computes confidences; that of the backend, so that thresholds are compared with the same
            numbers as at run time, to the bit.
        task: what the logits mean.
    """

    logits: np.ndarray
    labels: np.ndarray
    exits: tuple[int, ...]
    layers_run: tuple[int, ...]
    correctness_logits: np.ndarray | None = None
    confidence_of: criteria.ConfidenceFunction = criteria.confidence
    task: Task = TASKS[SINGLE_LABEL]

    @classmethod
    def observe(
        cls, model: SweetModelForSequenceClassification, batch: TokenBatch, labels: Sequence[int]
    ) -> ExitOutcomes:
        """Runs a model to its last exit for labelled rows.

        Args:
            batch: texts, read with `model.read(texts)`.
            labels: label id from 0, vector of ones and zeros, or value of each row, by task.

        Raises:
            InputError: no rows, not one label per row, or a label that the model does not have.
        """
        if not len(batch):
            raise InputError("there are no texts: evaluation needs one at least.")
        task = model.artifact.task
        labels = checked_labels(labels, len(batch), model.config.num_labels, "the evaluated texts", task)
        return cls.from_executor(model.executor, batch, labels)

    @classmethod
    def from_executor(
        cls, executor: Executor, batch: TokenBatch, labels: np.ndarray | None = None, description: str = "every exit"
    ) -> ExitOutcomes:
        """Runs rows to the last exit, with a progress bar.

        Args:
            labels: as `evaluation.labels.checked_labels` returns them, if there are any.
            description: text to the left of the bar.
        """
        logits, correctness_logits = outputs_at_every_exit(executor, batch, description)
        artifact = executor.backend.artifact
        if labels is None:
            per_row = (executor.backend.num_labels,) if artifact.task.name == MULTI_LABEL else ()
            labels = np.full((len(batch), *per_row), NO_LABEL)
        return cls(
            logits,
            labels,
            artifact.exits,
            artifact.layers_run,
            correctness_logits,
            confidence_of=executor.backend.confidence,
            task=artifact.task,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: np.ndarray) -> ExitOutcomes:
        """Returns the outcomes of some rows, in the given order."""
        correctness_logits = None if self.correctness_logits is None else self.correctness_logits[rows]
        return dataclasses.replace(
            self, logits=self.logits[rows], labels=self.labels[rows], correctness_logits=correctness_logits
        )

    def confidences(self, policy: Policy) -> np.ndarray:
        """Returns (rows, exits) float32, by the policy's criterion; NaN where logits are not finite."""
        return criteria.confidence_at_every_exit(policy, self.logits, self.correctness_logits, self.confidence_of)

    def leaving(self, policy: Policy) -> np.ndarray:
        """Returns the index of the exit at which each row leaves, as the executor decides, (rows,) int64."""
        return criteria.leaving_exit(policy, self.confidences(policy))

    def predictions(self, policy: Policy | None = None) -> np.ndarray:
        """Returns what each exit predicts, as `Task.decisions`: (rows, exits) or (rows, exits, labels).

        Args:
            policy: its thresholds of labels, with its temperatures, apply in multi-label classification.
        """
        if policy is None or policy.label_thresholds is None:
            return self.task.decisions(self.logits)
        temperatures = np.asarray(policy.temperatures, dtype=np.float32)[:, None]
        return self.task.decisions(self.logits, temperatures, policy.label_thresholds)

    def answers(self, policy: Policy) -> np.ndarray:
        """Returns what each row is predicted under a policy, (rows,) or (rows, labels)."""
        return self.predictions(policy)[np.arange(len(self)), self.leaving(policy)]

    def mean_layers(self, policy: Policy) -> float:
        """Returns the mean number of layers run per row under a policy."""
        return float(np.asarray(self.layers_run, dtype=np.float64)[self.leaving(policy)].mean())


def predictions_from_logits(logits: np.ndarray) -> np.ndarray:
    """Returns labels (rows, exits) int64 for logits (rows, exits, labels); -1 where they are not finite."""
    return TASKS[SINGLE_LABEL].decisions(logits)


def outputs_at_every_exit(
    executor: Executor, batch: TokenBatch, description: str = "every exit"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Runs every row to the last exit, with a progress bar.

    Args:
        description: text to the left of the bar.

    Returns:
        logits (rows, exits, labels) float32, and correctness logits (rows, exits) float32 of exits that learned to
        exit.
    """
    outputs = np.empty((len(batch), executor.num_exits, executor.backend.num_outputs), dtype=np.float32)
    order = np.argsort(batch.lengths, kind="stable")
    size = _BATCHES_AT_ONCE * executor.batch_size
    for start in progress(range(0, len(order), size), description, unit="batch"):
        rows = order[start : start + size]
        outputs[rows] = executor.outputs_at_every_exit(batch.select(rows))
    return criteria.split_outputs(outputs, executor.backend.num_labels)
