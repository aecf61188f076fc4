"""Adds the exits' metrics to the evaluations and predictions of a Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from itrex_sweet.training.attaching import attachment_of
from itrex_sweet.training.attachment import Attachment
from itrex_sweet.training.exit_diagnostics import ExitDiagnostics
from itrex_sweet.training.exit_metrics import ExitPredictions
from itrex_sweet.training.label_loss import LabelLoss
from itrex_sweet.training.task_losses import losses_of
from itrex_sweet.training.training_data import dataset_fingerprints


class ExitEvaluation(TrainerCallback):
    """The part of `SweetCallback` that evaluates exits.

    Args:
        compute_metrics: as the Trainer's, applied to every exit.
    """

    def __init__(self, compute_metrics: Callable[[EvalPrediction], Mapping[str, Any]] | None = None):
        self.compute_metrics = compute_metrics
        self._predictions = ExitPredictions()
        self._label_loss: LabelLoss | None = None
        self._dataloader: Any = None
        self._without_labels = False
        self._in_training = False
        self._diagnostics: dict[str, ExitDiagnostics] = {}
        self._diagnostics_at_step: dict[int, dict[str, ExitDiagnostics]] = {}

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Collects the exits' logits of an evaluation batch."""
        if eval_dataloader is not self._dataloader:  # a new evaluation; the last one may have been interrupted
            self._reset_evaluation()
            self._dataloader = eval_dataloader
        attachment = attachment_of(model)
        if attachment is not None:
            inputs = attachment.main_input if "inputs" in args.include_for_metrics else None
            labels = attachment.labels
            self._without_labels = labels is None and attachment.config.trains_exits_alone
            if self._without_labels:  # compares the exits with the predictions of the last one, which they learn
                labels = losses_of(attachment.task).targets(attachment.exit_logits[attachment.exits[-1]])
            self._predictions.add(attachment.exit_logits, labels, inputs)
            self._label_loss = attachment.label_loss
            self._thresholds = attachment.config.default_policy(attachment.task).thresholds

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        model: Any = None,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' metrics if `on_log` was not called, as in a Trainer subclass with its own `log`."""
        if self._in_training and args.metric_for_best_model is not None:
            _record_selection_rows(attachment_of(model), eval_dataloader)
        if metrics is not None:
            metrics.update(self._pop_metrics(metrics, args, state))
        self._reset_evaluation()

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Adds the exits' metrics to those of `trainer.predict`, if the rows have labels."""
        metrics.update(self._pop_metrics(metrics, args, state))
        self._reset_evaluation()

    def _final_diagnostics(self, args: TrainingArguments, state: TrainerState) -> dict[str, ExitDiagnostics]:
        """Returns the diagnostics of the model that training ends with: the best checkpoint's, or the last."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            step = state.best_model_checkpoint.rpartition("-")[2]
            return self._diagnostics_at_step.get(int(step), {}) if step.isdigit() else {}
        return self._diagnostics

    def _pop_metrics(self, logs: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> dict[str, float]:
        """Computes the exits' metrics of the collected batches, and clears them."""
        # The Trainer reports the run time of every evaluation and prediction with its metric prefix.
        prefixes = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")]
        evaluations = [name for name in prefixes if f"{name}_samples_per_second" in logs]
        prefix = min(evaluations, key=len, default=None)
        if prefix is None or not self._predictions:
            return {}
        if self._without_labels:
            metrics = self._predictions.metrics(prefix, self._label_loss, None, args)
            self._reset_evaluation()
            return {name.replace("_accuracy", "_agreement"): value for name, value in metrics.items()}
        metrics = self._predictions.metrics(prefix, self._label_loss, self.compute_metrics, args)
        diagnostics = self._predictions.diagnostics(self._thresholds, self._label_loss.task)
        self._diagnostics[prefix] = diagnostics
        self._diagnostics_at_step.setdefault(state.global_step, {})[prefix] = diagnostics
        self._reset_evaluation()
        return metrics

    def _reset_evaluation(self) -> None:
        self._predictions.clear()
        self._dataloader = None


def _record_selection_rows(attachment: Attachment | None, dataloader: Any) -> None:
    """Records the fingerprints of evaluation rows that a checkpoint may be selected by."""
    rows = dataset_fingerprints(dataloader)
    if attachment is not None and rows is not None:
        attachment.selected_by = rows if attachment.selected_by is None else attachment.selected_by.union(rows)
