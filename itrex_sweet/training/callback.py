"""Trains exits with an unmodified Hugging Face Trainer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from transformers import EvalPrediction, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from itrex_sweet.config import ALL, BALANCED, DECOUPLED, SweetConfig, balanced_positive_weights, balanced_weights
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.tasks import MULTI_LABEL
from itrex_sweet.training.attaching import attach, attachment_of, settings_for_task
from itrex_sweet.training.attachment import WRAPPED_AFTER_ATTACH, Attachment
from itrex_sweet.training.exit_evaluation import ExitEvaluation
from itrex_sweet.training.exit_optimization import ExitOptimization
from itrex_sweet.training.label_loss import LossFunction, accepts_exit, function_name
from itrex_sweet.training.precision import ensure_float32
from itrex_sweet.training.teacher import Teacher
from itrex_sweet.training.training_data import dataset_fingerprints, dataset_labels
from itrex_sweet.training.validation import (
    check_not_wrapped,
    check_optimizer,
    check_teacher,
    check_training_arguments,
    check_vocabulary_size,
)

logger = logging.getLogger(__name__)


class SweetCallback(ExitEvaluation, ExitOptimization, ExportableState):
    """Attaches exits to the Trainer's model and trains them: `Trainer(..., callbacks=[SweetCallback()])`.

    In mode `"decoupled"`, the default, the model and its own head train exactly as without the callback, to the bit,
    given the same arguments and seed. The exits' own parameters train with `exit_lr_multiplier` times the learning
    rate.

    The training loss is the sum of the losses of all exits. Every training log gets `loss_exit_4` and so on, and every
    evaluation `eval_exit_4_accuracy` and `eval_exit_4_loss` for each exit, which `metric_for_best_model` can name.
    Gradients are clipped to `args.max_grad_norm` for the model and for each exit separately, in `sweet` mode per
    segment, since a global norm would couple the exits. A loss or gradient that is not finite stops the training before
    the optimizer step. When training ends, a warning is logged if an exit's loss is nearly that of predicting the
    frequencies, or the mean, of the labels while the last exit's is not, and if the last evaluation found exits whose
    outputs do not depend on the labels, or no row that leaves early; `logs_diagnostics = False` turns these warnings
    off.

    Half-precision weights, which transformers 5 loads from a half-precision checkpoint, are converted to float32.

    The Trainer calls the callbacks of `report_to` before this one, so their logs lack the exits' losses: to log these,
    pass `report_to="none"` and the reporting callback after this one.

    Args:
        exits: counts of encoder layers after which the model may answer, the last the full depth; by default those
            that the model was saved with, or `default_exits` of its depth.
        mode: `"decoupled"`, `"sweet"`, `"paper"` or `"joint"`, see `SweetConfig`.
        gradient_scale: with `"sweet"` and `"paper"`, share in [0, 1] of the gradient that flows from a segment to the
            one before it, one for all segments or one each; or `"cut_first"`, see `SweetConfig`.
        compute_metrics: as the Trainer's, applied to every exit: a value named `matthews` is reported as
            `eval_exit_4_matthews`.
        learn_to_exit: train every exit but the last to predict the probability that its answer is correct, for the
            criterion `"learned"`. The rest of the training does not change.
        distillation: share in [0, 1] of each exit's loss that comes from a teacher, see `SweetConfig`.
        distillation_temperature: temperature of the distillation loss.
        teacher: a fine-tuned classification model with the same labels and tokenizer; by default the last exit.
        class_weights: one positive weight per label for the cross-entropy of every exit, the last included, in training
            and in evaluation; `"balanced"` computes them from the training rows, see `SweetConfig`.
        loss: replaces the cross-entropy at every exit: `(logits, labels, exit)` or `(logits, labels)` → mean over the
            rows, a scalar; for instance the module `torch.nn.CrossEntropyLoss(label_smoothing=0.1)`. With distillation
            it replaces the loss against the labels.
        allow_half: keep half-precision weights; small updates are then lost.
        train: `"exits"` trains the exits of a fine-tuned model: the model is frozen, its weights do not change, and the
            exits learn its predictions from rows that need no labels. If there are labels, `distillation` below 1 makes
            the exits learn from those too. An evaluation without labels reports `eval_exit_4_agreement` with the
            model's predictions. The model is unfrozen when training ends.
        exit_lr_multiplier: factor of the learning rate for the exits' own parameters, see `SweetConfig`.

    Raises:
        ConfigError: invalid settings; when the Trainer is created, exits that do not fit the model.
        UnsupportedModelError: when the Trainer is created, a model that exits do not support.
        TrainingSetupError: when the Trainer is created or training begins, a setup that would silently train something
            else; after the first backward, exits without gradient.
        TrainingDivergedError: in training, a loss or gradient that is not finite.
    """

    logs_diagnostics = True

    def __init__(
        self,
        exits: Iterable[int] | None = None,
        mode: str = DECOUPLED,
        gradient_scale: float | str | Iterable[float] = 0.0,
        compute_metrics: Callable[[EvalPrediction], Mapping[str, Any]] | None = None,
        learn_to_exit: bool = False,
        distillation: float | None = None,
        distillation_temperature: float = 2.0,
        teacher: nn.Module | None = None,
        class_weights: str | Iterable[float] | None = None,
        loss: LossFunction | None = None,
        allow_half: bool = False,
        train: str = ALL,
        exit_lr_multiplier: float | None = None,
    ):
        if loss is not None:
            accepts_exit(loss)
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise ConfigError(f"teacher={teacher!r}: pass a classification model, from_pretrained(...).")
        if compute_metrics is not None and not callable(compute_metrics):
            raise ConfigError(f"compute_metrics={compute_metrics!r}: pass a function, as for the Trainer.")
        if not isinstance(allow_half, bool):
            raise ConfigError(f"allow_half={allow_half!r}: pass True or False.")
        ExitEvaluation.__init__(self, compute_metrics)
        config = SweetConfig(
            exits=exits,
            mode=mode,
            gradient_scale=gradient_scale,
            learn_to_exit=learn_to_exit,
            distillation=distillation,
            distillation_temperature=distillation_temperature,
            class_weights=class_weights,
            loss=None if loss is None else function_name(loss),
            train=train,
            exit_lr_multiplier=exit_lr_multiplier,
        )
        if teacher is not None and config.distillation == 0.0:
            raise ConfigError("teacher without distillation: pass its share of the loss, such as distillation=0.5.")
        ExitOptimization.__init__(self, config)
        self.loss = loss
        self.loss_name = self.config.loss
        self.longest_row: int | None = None
        self.allow_half = allow_half
        self._balances_classes = self.config.class_weights == BALANCED
        self.teacher = teacher
        self.has_compute_metrics = compute_metrics is not None

    def state(self) -> dict[str, Any]:
        """Returns the settings that `trainer_state.json` records, in the Trainer's format."""
        args = self.config.to_dict()
        for name in ("loss", "threshold", "longest_row"):  # a function, and what training records
            args.pop(name, None)
        names = ("has_compute_metrics", "loss_name", "longest_row", "allow_half")
        return {"args": args, "attributes": {name: getattr(self, name) for name in names}}

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Attaches the exits, before the optimizer is created."""
        check_training_arguments(args)
        check_not_wrapped(model)
        check_vocabulary_size(processing_class, model)
        if not self.allow_half:
            ensure_float32(model)
        self._use_attachment(attachment_of(model) or attach(model, self.config, loss=self.loss), model)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Checks the setup, and prepares the exits for training."""
        check_training_arguments(args)
        attachment = attachment_of(model)
        if attachment is None:
            raise TrainingSetupError(
                "the model in training has no exits. With model_init, the Trainer creates a new one after "
                "on_init_end: call itrex_sweet.attach(model, SweetConfig(...)) inside model_init; or "
                "pass SweetCallback to the Trainer's constructor, not to add_callback."
            )
        for name, was_set in (("compute_metrics", self.has_compute_metrics), ("loss", self.loss_name is not None)):
            if was_set and getattr(self, name) is None:
                raise TrainingSetupError(
                    f"restore_callback_states_from_checkpoint created SweetCallback again without its {name} "
                    "function. Leave it off: SweetCallback has no state to restore."
                )
        self._use_attachment(attachment, model)
        if not self.allow_half:
            ensure_float32(model)  # an evaluation with bf16_full_eval leaves bfloat16 weights
        check_optimizer(attachment, optimizer)
        if self._balances_classes:
            balance = balanced_positive_weights if attachment.task.name == MULTI_LABEL else balanced_weights
            attachment.set_class_weights(balance(dataset_labels(train_dataloader), model.config.num_labels))
            self.config = attachment.config
        attachment.trained_on, attachment.selected_by = dataset_fingerprints(train_dataloader), None
        self._in_training = True
        if state.global_step > 0:
            self._check_resumed_settings(state)
            attachment.update_longest_row(self.longest_row or 0)
        attachment.loss_received_gradient = False
        self._diagnostics, self._diagnostics_at_step = {}, {}
        self._reset_evaluation()
        self._begin_optimization(args)
        if self.config.trains_exits_alone:
            attachment.freeze_model()  # an earlier training unfroze it when it ended

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' losses to their running means, and records the longest row."""
        super().on_step_end(args, state, control, model=model, **kwargs)
        self.longest_row = attachment_of(model).config.longest_row

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' losses to a training log, and the exits' metrics to the log of an evaluation."""
        if logs is None:
            return
        if "loss" in logs and "learning_rate" in logs:
            added = {f"loss_exit_{exit_}": round(mean, 4) for exit_, mean in self._losses.pop().items()}
            if self._gradient_norm is not None and ("grad_norm" not in logs or self._trains_model_beside_exits):
                added["grad_norm"] = self._gradient_norm.item()
        else:
            added = self._pop_metrics(logs, args, state)
        logs.update(added)
        if state.log_history and added:
            state.log_history[-1].update(added)  # the Trainer has appended a copy of `logs`

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Restores the Trainer's clipping, unfreezes the model, and logs the warnings of the last evaluation."""
        self._in_training = False
        if (attachment := attachment_of(model)) is not None:
            attachment.unfreeze_model()
        self._end_optimization(args)
        if self.logs_diagnostics and state.is_world_process_zero:
            for sentence in self._late_losses.warnings():
                logger.warning("training: %s", sentence)
            for prefix, diagnostics in self._final_diagnostics(args, state).items():
                for sentence in diagnostics.warnings():
                    logger.warning("%s: %s", prefix, sentence)

    def _use_attachment(self, attachment: Attachment, model: Any) -> None:
        """Copies the resolved settings of the attached exits, after a check that they equal those of the callback."""
        if attachment.model is not model:
            raise TrainingSetupError(WRAPPED_AFTER_ATTACH)
        requested = self.config
        if requested.exits is None:
            requested = dataclasses.replace(requested, exits=attachment.exits)
        if self._balances_classes:
            requested = dataclasses.replace(requested, class_weights=attachment.config.class_weights)
        requested = settings_for_task(requested.resolved(attachment.exits[-1]), attachment.task)
        if requested != attachment.config:
            raise TrainingSetupError(
                f"the model has exits attached with {attachment.config}, and the callback has {requested}: "
                "give both the same settings, or call detach(model) first."
            )
        self.config = attachment.config
        if self.loss is not None:
            attachment.set_loss_function(self.loss)
        if self.teacher is not None:
            check_teacher(self.teacher, model)
            attachment.teacher = Teacher(self.teacher)

    def _check_resumed_settings(self, state: TrainerState) -> None:
        """Checks that the checkpoint to resume from was trained with these settings."""
        recorded = (state.stateful_callbacks or {}).get(type(self).__name__)
        recorded = recorded[0] if isinstance(recorded, list) else recorded
        if not recorded:
            raise TrainingSetupError(
                "the checkpoint to resume from was written without exits, so it holds no exit heads and "
                "their optimizer state: load its weights as the model and start training without "
                "resume_from_checkpoint."
            )
        attributes = recorded.get("attributes", {})
        recorded_config = SweetConfig.from_dict({**recorded["args"], "loss": attributes.get("loss_name")})
        self.longest_row = attributes.get("longest_row")
        if recorded_config != self.config:
            raise TrainingSetupError(
                f"the checkpoint to resume from was trained with {recorded_config}, and the callback has "
                f"{self.config}: resume with the recorded settings, or start a new training."
            )
