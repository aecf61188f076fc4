"""Per-exit figures of one evaluation, collected batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.state import GradientState, PartialState
from accelerate.utils import gather, pad_across_processes
from transformers import EvalPrediction, TrainingArguments
from transformers.trainer_utils import denumpify_detensorize

from itrex_sweet.config import DEFAULT_THRESHOLD
from itrex_sweet.training.label_loss import LabelLoss
from itrex_sweet.training.losses import IGNORED_LABEL
from itrex_sweet.training.standing import Standing

_PADDING = -100  # of inputs, as the Trainer pads them


class ExitPredictions:
    """Logits of every exit and labels, of the rows seen so far, gathered over processes, on the CPU."""

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
        """Adds a batch; one without labels is passed over.

        Args:
            exit_logits: exit → (rows, labels).
            labels: (rows,) int64.
            inputs: (rows, length, ...), for metrics that read them; the length may differ from batch to batch.
        """
        if labels is None:
            return
        self._labels.append(_over_processes(labels).cpu())
        for exit_, logits in exit_logits.items():
            self._logits.setdefault(exit_, []).append(_over_processes(logits.float().contiguous()).cpu())
        if inputs is not None:
            padded = pad_across_processes(inputs, dim=1, pad_index=_PADDING)
            self._inputs.append(_over_processes(padded).cpu())

    def clear(self) -> None:
        """Forgets every row."""
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
        """Accuracy and mean loss against the labels per exit, and what `compute_metrics` makes of each.

        Args:
            prefix: `"eval"` gives `eval_exit_4_accuracy`, `eval_exit_4_loss`.
            label_loss: the loss of an exit.
            compute_metrics: as the Trainer's, called once per exit with (rows, labels) logits.
            args: say what `compute_metrics` is given besides, and how it is called.
        """
        if not self._labels:
            return {}
        labels = torch.cat(self._labels)
        labelled = labels != IGNORED_LABEL
        metrics: dict[str, float] = {}
        for exit_, batches in self._logits.items():
            logits = torch.cat(batches)
            right = (logits.argmax(-1) == labels)[labelled]
            values: dict[str, Any] = {
                "accuracy": right.float().mean().item() if len(right) else float("nan"),
                "loss": label_loss(logits, labels, exit_).item(),
            }
            if compute_metrics is not None:
                computed = self._computed(compute_metrics, logits, labels, values["loss"], args)
                values.update(denumpify_detensorize(dict(computed)))
            metrics.update({f"{prefix}_exit_{exit_}_{name}": value for name, value in values.items()})
        return metrics

    def standing(self) -> Standing:
        """Compares the exits with always giving one answer, and says if no row leaves early."""
        labels = torch.cat(self._labels)
        labelled = labels != IGNORED_LABEL
        labels = labels[labelled]
        logits = {exit_: torch.cat(batches)[labelled] for exit_, batches in self._logits.items()}
        sure = torch.zeros(len(labels), dtype=torch.bool)
        for each in list(logits.values())[:-1]:
            sure |= each.softmax(-1).amax(-1) > DEFAULT_THRESHOLD
        return Standing.of(
            labels.tolist(),
            {exit_: (each.argmax(-1) == labels).float().mean().item() for exit_, each in logits.items()},
            sure.float().mean().item() if len(logits) > 1 else None,
            f"the default threshold of {DEFAULT_THRESHOLD:g}",
        )

    def _computed(
        self,
        compute_metrics: Callable[..., Mapping[str, Any]],
        logits: torch.Tensor,
        labels: torch.Tensor,
        loss: float,
        args: TrainingArguments,
    ) -> Mapping[str, Any]:
        """The user's metrics, called as the Trainer calls them; with `batch_eval_metrics` once for all rows."""
        given: dict[str, torch.Tensor] = {"predictions": logits, "label_ids": labels}
        if self._inputs:
            given["inputs"] = _padded_together(self._inputs)
        if "loss" in args.include_for_metrics:
            given["losses"] = torch.full((len(labels),), loss)
        if args.batch_eval_metrics:
            return compute_metrics(EvalPrediction(**given), compute_result=True)
        return compute_metrics(EvalPrediction(**{name: value.numpy() for name, value in given.items()}))


class RunningMeans:
    """Means of the exits' losses since the last log, kept as tensors so that nothing waits for a device."""

    def __init__(self) -> None:
        self._sums: dict[int, torch.Tensor] = {}
        self._count = 0

    def add(self, losses: Mapping[int, torch.Tensor]) -> None:
        for exit_, loss in losses.items():
            self._sums[exit_] = self._sums.get(exit_, 0.0) + loss
        self._count += 1

    def take(self) -> dict[int, float]:
        means = {exit_: mean_over_processes(total / self._count) for exit_, total in self._sums.items()}
        self.clear()
        return means

    def sums(self) -> dict[int, torch.Tensor]:
        """Exit → its losses so far, added up."""
        return self._sums

    def clear(self) -> None:
        self._sums, self._count = {}, 0


def _padded_together(batches: list[torch.Tensor]) -> torch.Tensor:
    """Batches of (rows, length, ...) as one, padded as the Trainer pads them."""
    longest = max(batch.shape[1] for batch in batches)
    shapes = [(len(batch), longest - batch.shape[1], *batch.shape[2:]) for batch in batches]
    return torch.cat(
        [
            torch.cat([batch, batch.new_full(shape, _PADDING)], dim=1)
            for batch, shape in zip(batches, shapes, strict=True)
        ]
    )


def mean_over_processes(value: torch.Tensor) -> float:
    """The mean of a scalar over all processes of a distributed run."""
    return (gather(value.reshape(1)).mean() if PartialState().num_processes > 1 else value).item()


def _over_processes(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, without those that pad the last batch; as `Accelerator.gather_for_metrics`."""
    if PartialState().num_processes == 1:
        return rows
    rows, state = gather(rows), GradientState()
    return rows[: state.remainder] if state.end_of_dataloader and state.remainder > 0 else rows
