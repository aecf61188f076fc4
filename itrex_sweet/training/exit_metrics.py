"""Per-exit metrics of an evaluation, collected batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.state import GradientState, PartialState
from accelerate.utils import gather, pad_across_processes
from transformers import EvalPrediction, TrainingArguments
from transformers.trainer_utils import denumpify_detensorize

from itrex_sweet.association import association, one_hot
from itrex_sweet.metrics import METRICS
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from itrex_sweet.training.exit_diagnostics import ExitDiagnostics
from itrex_sweet.training.label_loss import LabelLoss
from itrex_sweet.training.losses import IGNORE_INDEX

_PADDING = -100  # padding of inputs in the Trainer


class ExitPredictions:
    """The logits of every exit and the labels of the rows evaluated so far, gathered over processes, on the CPU."""

    def __init__(self) -> None:
        self._logits: dict[int, list[torch.Tensor]] = {}
        self._labels: list[torch.Tensor] = []
        self._inputs: list[torch.Tensor] = []

    def add(
        self,
        exit_logits: Mapping[int, torch.Tensor],
        labels: torch.Tensor | None,
        inputs: torch.Tensor | None = None,
    ) -> None:
        """Adds a batch. A batch without labels is ignored.

        Args:
            exit_logits: exit → (rows, labels).
            labels: (rows,) int64; for multi-label classification (rows, labels), for regression (rows,) float32.
            inputs: (rows, length, ...), for metrics that use them; the length may differ between batches.
        """
        if labels is None:
            return
        self._labels.append(_gather_rows(labels).cpu())
        for exit_, logits in exit_logits.items():
            self._logits.setdefault(exit_, []).append(_gather_rows(logits.float().contiguous()).cpu())
        if inputs is not None:
            padded = pad_across_processes(inputs, dim=1, pad_index=_PADDING)
            self._inputs.append(_gather_rows(padded).cpu())

    def clear(self) -> None:
        """Removes all rows."""
        self._logits, self._labels, self._inputs = {}, [], []

    def __bool__(self) -> bool:
        return bool(self._labels)

    def metrics(
        self,
        prefix: str,
        label_loss: LabelLoss,
        compute_metrics: Callable[..., Mapping[str, Any]] | None,
        args: TrainingArguments,
    ) -> dict[str, float]:
        """Computes accuracy, or the metrics of the task, mean loss and the user's metrics of each exit.

        Args:
            prefix: `"eval"` gives `eval_exit_4_accuracy`, `eval_exit_4_loss`.
            label_loss: the loss of an exit against the labels.
            compute_metrics: as the Trainer's, called once per exit with (rows, labels) logits.
            args: `include_for_metrics` and `batch_eval_metrics` apply to `compute_metrics`.
        """
        if not self._labels:
            return {}
        labels = torch.cat(self._labels)
        labelled = labels != IGNORE_INDEX
        metrics: dict[str, float] = {}
        for exit_, batches in self._logits.items():
            logits = torch.cat(batches)
            values: dict[str, Any] = {}
            if label_loss.task.name == SINGLE_LABEL:
                is_correct = (logits.argmax(-1) == labels)[labelled]
                values["accuracy"] = is_correct.float().mean().item() if len(is_correct) else float("nan")
            else:
                decisions = label_loss.task.decisions(logits.numpy())
                values.update({name: METRICS[name](decisions, labels.numpy()) for name in label_loss.task.metrics})
            values["loss"] = label_loss(logits, labels, exit_).item()
            if compute_metrics is not None:
                computed = self._compute_user_metrics(compute_metrics, logits, labels, values["loss"], args)
                values.update(denumpify_detensorize(dict(computed)))
            metrics.update({f"{prefix}_exit_{exit_}_{name}": value for name, value in values.items()})
        return metrics

    def diagnostics(self, thresholds: Sequence[float], task: Task) -> ExitDiagnostics:
        """Compares the exits with a constant prediction, and computes the share of rows that leave early, which is not
        known for a regression.

        Args:
            thresholds: of the default policy, one per exit but the last.
        """
        labels = torch.cat(self._labels)
        labelled = labels != IGNORE_INDEX if task.name == SINGLE_LABEL else torch.ones(len(labels), dtype=torch.bool)
        labels = (labels > 0.5).long() if task.name == MULTI_LABEL else labels[labelled]
        logits = {exit_: torch.cat(batches)[labelled] for exit_, batches in self._logits.items()}
        targets = one_hot(task, labels.numpy(), next(iter(logits.values())).shape[1])
        return ExitDiagnostics.of(
            task,
            labels.tolist(),
            {exit_: _share_correct(each, labels, task) for exit_, each in logits.items()},
            {exit_: association(each.numpy(), targets) for exit_, each in logits.items()},
            _share_leaving_early(list(logits.values())[:-1], thresholds, task),
            f"the default threshold of {thresholds[0]:g}" if thresholds else "",
        )

    def _compute_user_metrics(
        self,
        compute_metrics: Callable[..., Mapping[str, Any]],
        logits: torch.Tensor,
        labels: torch.Tensor,
        loss: float,
        args: TrainingArguments,
    ) -> Mapping[str, Any]:
        """Calls `compute_metrics` as the Trainer does; with `batch_eval_metrics`, once for all rows."""
        arguments: dict[str, torch.Tensor] = {"predictions": logits, "label_ids": labels}
        if self._inputs:
            arguments["inputs"] = _pad_and_concatenate(self._inputs)
        if "loss" in args.include_for_metrics:
            arguments["losses"] = torch.full((len(labels),), loss)
        if args.batch_eval_metrics:
            return compute_metrics(EvalPrediction(**arguments), compute_result=True)
        return compute_metrics(EvalPrediction(**{name: value.numpy() for name, value in arguments.items()}))


def _share_correct(logits: torch.Tensor, labels: torch.Tensor, task: Task) -> float:
    """Returns the share of rows with a correct label or set of labels; 0 for a regression."""
    if task.name == REGRESSION:
        return 0.0
    is_correct = ((logits > 0) == labels).all(-1) if task.name == MULTI_LABEL else logits.argmax(-1) == labels
    return is_correct.float().mean().item()


def _share_leaving_early(logits: Sequence[torch.Tensor], thresholds: Sequence[float], task: Task) -> float | None:
    """Returns the share of rows that are confident at one of the early exits; `None` if there are none, or for a
    regression, whose confidence is another output.
    """
    if not logits or task.name == REGRESSION:
        return None
    leaves_early = torch.zeros(len(logits[0]), dtype=torch.bool)
    for each, threshold in zip(logits, thresholds, strict=True):
        confidence = torch.sigmoid(each.abs().amin(-1)) if task.name == MULTI_LABEL else each.softmax(-1).amax(-1)
        leaves_early |= confidence > threshold
    return leaves_early.float().mean().item()


class RunningMeans:
    """Running means of the exits' losses, kept as tensors to avoid device synchronization."""

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}
        self._count = 0

    def add(self, losses: Mapping[int, torch.Tensor]) -> None:
        """Adds the losses of a batch: exit → scalar."""
        for exit_, loss in losses.items():
            self._sums[exit_] = self._sums.get(exit_, 0.0) + loss
        self._count += 1

    def pop(self) -> dict[int, float]:
        """Returns exit → mean loss over all processes, and resets the means."""
        means = {exit_: mean_over_processes(mean) for exit_, mean in self.means().items()}
        self.clear()
        return means

    def means(self) -> dict[int, torch.Tensor]:
        """Returns exit → mean loss of this process."""
        return {exit_: total / self._count for exit_, total in self._sums.items()}

    def sums(self) -> dict[int, torch.Tensor]:
        """Returns exit → sum of its losses."""
        return self._sums

    def clear(self) -> None:
        self._sums, self._count = {}, 0


def _pad_and_concatenate(batches: list[torch.Tensor]) -> torch.Tensor:
    """Concatenates batches of (rows, length, ...), padded to the longest as the Trainer does."""
    longest = max(batch.shape[1] for batch in batches)
    shapes = [(len(batch), longest - batch.shape[1], *batch.shape[2:]) for batch in batches]
    return torch.cat(
        [
            torch.cat([batch, batch.new_full(shape, _PADDING)], dim=1)
            for batch, shape in zip(batches, shapes, strict=True)
        ]
    )


def mean_over_processes(value: torch.Tensor) -> float:
    """Returns the mean of a scalar over all processes of a distributed run."""
    return (gather(value.reshape(1)).mean() if PartialState().num_processes > 1 else value).item()


def _gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Gathers rows of all processes, without the duplicates in the last batch (`Accelerator.gather_for_metrics`)."""
    if PartialState().num_processes == 1:
        return rows
    rows, state = gather(rows), GradientState()
    return rows[: state.remainder] if state.end_of_dataloader and state.remainder > 0 else rows
