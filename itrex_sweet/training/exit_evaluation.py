"""The exits' figures in what a Trainer evaluates and predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from itrex_sweet.training.attaching import attachment_of
from itrex_sweet.training.attachment import Attachment
from itrex_sweet.training.exit_metrics import ExitPredictions
from itrex_sweet.training.label_loss import LabelLoss
from itrex_sweet.training.standing import Standing
from itrex_sweet.training.trained_rows import fingerprints_of


class ExitEvaluation(TrainerCallback):
    """The half of `SweetCallback` that evaluates exits.

    Args:
        compute_metrics: as the Trainer's, applied to every exit.
    """

    def __init__(self, compute_metrics: Callable[[EvalPrediction], Mapping[str, Any]] | None = None):
        self.compute_metrics = compute_metrics
        self._predictions = ExitPredictions()
        self._label_loss: LabelLoss | None = None
        self._evaluated: Any = None
        self._without_labels = False
        self._in_training = False
        self._standings: dict[str, Standing] = {}
        self._standings_at: dict[int, dict[str, Standing]] = {}

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keeps the exits' logits of an evaluated batch."""
        if eval_dataloader is not self._evaluated:  # a new evaluation: the last one may have been interrupted
            self._forget_evaluation()
            self._evaluated = eval_dataloader
        attachment = attachment_of(model)
        if attachment is not None:
            inputs = attachment.main_input if "inputs" in args.include_for_metrics else None
            labels = attachment.labels
            self._without_labels = labels is None and attachment.config.trains_exits_alone
            if self._without_labels:  # exits are compared with what they learn: the model's answers
                labels = attachment.exit_logits[attachment.exits[-1]].argmax(dim=-1)
            self._predictions.add(attachment.exit_logits, labels, inputs)
            self._label_loss = attachment.label_loss

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
        """Adds the exits' metrics where a Trainer's own `log` kept them from us."""
        if self._in_training and args.metric_for_best_model is not None:
            _note_selection(attachment_of(model), eval_dataloader)
        if metrics is not None:
            metrics.update(self._take_metrics(metrics, args, state))
        self._forget_evaluation()

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Adds the exits' metrics to those of `trainer.predict`, where the rows had labels."""
        metrics.update(self._take_metrics(metrics, args, state))
        self._forget_evaluation()

    def _standings_of_the_model(self, args: TrainingArguments, state: TrainerState) -> dict[str, Standing]:
        """The results of the evaluation of the model that training ends with."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            step = state.best_model_checkpoint.rpartition("-")[2]
            return self._standings_at.get(int(step), {}) if step.isdigit() else {}
        return self._standings

    def _take_metrics(self, logs: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> dict[str, float]:
        # Every evaluation and prediction says how long it took, under its own prefix.
        prefixes = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")]
        speeds = [name for name in prefixes if f"{name}_samples_per_second" in logs]
        prefix = min(speeds, key=len, default=None)
        if prefix is None or not self._predictions:
            return {}
        if self._without_labels:
            metrics = self._predictions.metrics(prefix, self._label_loss, None, args)
            self._forget_evaluation()
            return {name.replace("_accuracy", "_agreement"): value for name, value in metrics.items()}
        metrics = self._predictions.metrics(prefix, self._label_loss, self.compute_metrics, args)
        self._standings[prefix] = self._predictions.standing()
        self._standings_at.setdefault(state.global_step, {})[prefix] = self._standings[prefix]
        self._forget_evaluation()
        return metrics

    def _forget_evaluation(self) -> None:
        self._predictions.clear()
        self._evaluated = None


def _note_selection(attachment: Attachment | None, dataloader: Any) -> None:
    """Records the rows of an evaluation that a checkpoint may be chosen by."""
    rows = fingerprints_of(dataloader)
    if attachment is not None and rows is not None:
        attachment.selected_by = rows if attachment.selected_by is None else attachment.selected_by.union(rows)
