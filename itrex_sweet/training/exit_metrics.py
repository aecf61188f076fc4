"""Per-exit figures of one evaluation, collected batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.state import GradientState, PartialState
from accelerate.utils import gather
from transformers import EvalPrediction
from transformers.trainer_utils import denumpify_detensorize

from itrex_sweet.training.losses import IGNORED_LABEL, classification_loss


class ExitPredictions:
    """Logits of every exit and labels, of the rows seen so far, gathered over processes, on the CPU."""

    def __init__(self) -> None:
        self._logits: dict[int, list[torch.Tensor]] = {}
        self._labels: list[torch.Tensor] = []

    def add(self, exit_logits: Mapping[int, torch.Tensor], labels: torch.Tensor | None) -> None:
        """Adds a batch; one without labels is passed over.

        Args:
            exit_logits: exit → (rows, labels).
            labels: (rows,) int64.
        """
        if labels is None:
            return
        self._labels.append(_over_processes(labels).cpu())
        for exit_, logits in exit_logits.items():
            self._logits.setdefault(exit_, []).append(_over_processes(logits.float().contiguous()).cpu())

    def clear(self) -> None:
        """Forgets every row."""
        self._logits, self._labels = {}, []

    def __bool__(self) -> bool:
        return bool(self._labels)

    def metrics(
        self, prefix: str, compute_metrics: Callable[[EvalPrediction], Mapping[str, Any]] | None = None
    ) -> dict[str, float]:
        """Accuracy and mean cross-entropy per exit, and what `compute_metrics` makes of each.

        Args:
            prefix: `"eval"` gives `eval_exit_4_accuracy`, `eval_exit_4_loss`.
            compute_metrics: as the Trainer's, called once per exit with (rows, labels) logits.
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
                "loss": classification_loss(logits, labels).item(),
            }
            if compute_metrics is not None:
                prediction = EvalPrediction(predictions=logits.numpy(), label_ids=labels.numpy())
                values.update(denumpify_detensorize(dict(compute_metrics(prediction))))
            metrics.update({f"{prefix}_exit_{exit_}_{name}": value for name, value in values.items()})
        return metrics


def mean_over_processes(value: torch.Tensor) -> float:
    """The mean of a scalar over all processes of a distributed run."""
    return (gather(value.reshape(1)).mean() if PartialState().num_processes > 1 else value).item()


def _over_processes(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, without those that pad the last batch; as `Accelerator.gather_for_metrics`."""
    if PartialState().num_processes == 1:
        return rows
    rows, state = gather(rows), GradientState()
    return rows[: state.remainder] if state.end_of_dataloader and state.remainder > 0 else rows
