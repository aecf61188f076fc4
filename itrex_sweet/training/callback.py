"""Training exits with an unmodified Hugging Face Trainer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from itrex_sweet.config import ALL, BALANCED, DECOUPLED, SweetConfig, balanced_weights
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training.attaching import attach, attachment_of
from itrex_sweet.training.attachment import WRAPPED_LATER, Attachment
from itrex_sweet.training.clipping import clip_by_group
from itrex_sweet.training.divergence import gradient_norm, refuse_divergence
from itrex_sweet.training.exit_metrics import ExitPredictions, RunningMeans
from itrex_sweet.training.exit_rate import ExitRate
from itrex_sweet.training.label_loss import LabelLoss, LossFunction, name_of, takes_exit
from itrex_sweet.training.precision import train_in_float32
from itrex_sweet.training.refusals import (
    refuse_large_tokenizer,
    refuse_optimizer_without_heads,
    refuse_other_labels,
    refuse_unfit,
    refuse_untrained_exits,
)
from itrex_sweet.training.standing import Standing
from itrex_sweet.training.teacher import Teacher
from itrex_sweet.training.trained_rows import fingerprints_of, labels_of
from itrex_sweet.training.wrapped_models import refuse_wrapped

logger = logging.getLogger(__name__)


class SweetCallback(TrainerCallback, ExportableState):
    """Puts exits on the Trainer's model and trains them: `Trainer(..., callbacks=[SweetCallback()])`.

    The model and its own head train as they do without the callback, to the bit, given the same arguments and seed
    (mode `"decoupled"`). The exits' own parts train beside them, with `exit_lr_multiplier` times the learning rate.

    The training loss becomes the sum of all exits' losses, every training log gets `loss_exit_4` and so on, and every
    evaluation `eval_exit_4_accuracy` and `eval_exit_4_loss` for each exit, which `metric_for_best_model` may
    name. Gradients are clipped to `args.max_grad_norm` for the model and for each exit by itself, in `sweet` mode per
    segment, since a global norm would couple the exits. A loss or gradient that is not finite ends the training before
    the step is taken. Training ends with a warning in words where the last evaluation found exits no better than the
    majority class, or nobody sure enough to leave early; `summarizes = False` keeps it quiet.

    Half-precision weights, as transformers 5 loads a checkpoint that was stored so, are turned to float32.

    Callbacks run in order and the Trainer puts those of `report_to` before yours, so they see a log without
    the exits' losses: to have them there, pass `report_to="none"` and the reporting callback after this one.

    Args:
        exits: counts of encoder layers after which the model may answer, the last the full depth; `None`
            takes those the model was saved with, or `default_exits` of its depth.
        mode: `"decoupled"`, `"sweet"`, `"paper"` or `"joint"`, see `SweetConfig`.
        gradient_scale: with `"sweet"` and `"paper"`, share in [0, 1] of the gradient that passes from a segment to the
            one before it, for all cuts or one each; or `"cut_first"`, see `SweetConfig`.
        learn_to_exit: every exit but the last also learns how likely it is right, for the criterion `"learned"`;
            nothing else of the training is changed by it.
        distillation: share in [0, 1] of each exit's loss that comes from a teacher, see `SweetConfig`.
        distillation_temperature: of it.
        teacher: a fine-tuned classification model with the same labels and tokenizer; the last exit if absent.
        train: `"exits"` trains the exits of a model that is fine-tuned already: the model is frozen and stays as it is
            to the bit, and the exits learn its answers from rows that need no labels. With labels, `distillation`
            below 1 says how much they learn from those. When training ends, what was frozen can train again.
        exit_lr_multiplier: how many times the Trainer's learning rate the exits' own parts have, see `SweetConfig`.
        compute_metrics: as the Trainer's, applied to every exit: a value named `matthews` is reported as
            `eval_exit_4_matthews`.
        class_weights: one positive weight per label for the cross-entropy of every exit, the last included, in training
            and in evaluation; `"balanced"` works them out of the training rows, see `SweetConfig`.
        loss: a function that takes the place of the cross-entropy there: `(logits, labels, exit)` or
            `(logits, labels)` → mean over the rows, a scalar; a `torch.nn.Module` such as
            `CrossEntropyLoss(label_smoothing=0.1)` is one. With distillation it is the labels' part of the loss.
        allow_half: leave half-precision weights as they are; small updates are then lost.

    Raises:
        ConfigError: settings that are wrong by themselves; when the Trainer is made, exits that do not fit
            the model.
        UnsupportedModelError: when the Trainer is made, a model that cannot carry exits.
        TrainingSetupError: when the Trainer is made or training begins, what would silently train something
            else; after the first backward, exits that it did not reach.
        TrainingDivergedError: in training, a loss or gradient that is not finite.
    """

    summarizes = True

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
            takes_exit(loss)
        if teacher is not None and not isinstance(teacher, nn.Module):
            raise ConfigError(f"teacher={teacher!r}: a classification model, from_pretrained(...).")
        if compute_metrics is not None and not callable(compute_metrics):
            raise ConfigError(f"compute_metrics={compute_metrics!r}: a function, as the Trainer's.")
        if not isinstance(allow_half, bool):
            raise ConfigError(f"allow_half={allow_half!r}: True or False.")
        self.config = SweetConfig(
            exits=exits,
            mode=mode,
            gradient_scale=gradient_scale,
            learn_to_exit=learn_to_exit,
            distillation=distillation,
            distillation_temperature=distillation_temperature,
            class_weights=class_weights,
            loss=None if loss is None else name_of(loss),
            train=train,
            exit_lr_multiplier=exit_lr_multiplier,
        )
        if teacher is not None and self.config.distillation == 0.0:
            raise ConfigError("teacher without distillation: say with distillation=0.5 how much of the loss is its.")
        self.loss = loss
        self.loss_name = self.config.loss
        self.longest_row: int | None = None
        self.allow_half = allow_half
        self._balances = self.config.class_weights == BALANCED
        self.teacher = teacher
        self.compute_metrics = compute_metrics
        self.has_compute_metrics = compute_metrics is not None
        self._losses = RunningMeans()
        self._predictions = ExitPredictions()
        self._label_loss: LabelLoss | None = None
        self._evaluated: Any = None
        self._in_training = False
        self._users_max_norm: float | None = None
        self._our_zero = float("0")  # an object of its own, to tell our zero from one that the user set
        self._gradient_norm: torch.Tensor | None = None
        self._step_losses = RunningMeans()
        self._checks_exits = True
        self._exit_rate = ExitRate(self.config.exit_lr_multiplier)
        self._standings: dict[str, Standing] = {}
        self._standings_at: dict[int, dict[str, Standing]] = {}

    def state(self) -> dict[str, Any]:
        """What `trainer_state.json` records of the settings, in the Trainer's own form."""
        args = self.config.to_dict()
        for name in ("loss", "longest_row"):  # a function is not kept, and nobody sets the other
            args.pop(name, None)
        kept = ("has_compute_metrics", "loss_name", "longest_row", "allow_half")
        return {"args": args, "attributes": {name: getattr(self, name) for name in kept}}

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Attaches the exits, before there is an optimizer."""
        refuse_unfit(args)
        refuse_wrapped(model)
        refuse_large_tokenizer(processing_class, model)
        if not self.allow_half:
            train_in_float32(model)
        self._take_over(attachment_of(model) or attach(model, self.config, loss=self.loss), model)

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
        """Checks that what is about to be trained is what was asked for."""
        refuse_unfit(args)
        attachment = attachment_of(model)
        if attachment is None:
            raise TrainingSetupError(
                "the model in training has no exits. The Trainer makes a new one with model_init after its "
                "callbacks have run: call itrex_sweet.attach(model, SweetConfig(...)) inside model_init; or "
                "add SweetCallback when the Trainer is made, not with add_callback."
            )
        for name, had in (("compute_metrics", self.has_compute_metrics), ("loss", self.loss_name is not None)):
            if had and getattr(self, name) is None:
                raise TrainingSetupError(
                    f"restore_callback_states_from_checkpoint made SweetCallback anew without its {name} function. "
                    "Leave it off: SweetCallback has no state to restore."
                )
        self._take_over(attachment, model)
        if not self.allow_half:
            train_in_float32(model)  # an evaluation with bf16_full_eval leaves the model so
        refuse_optimizer_without_heads(attachment, optimizer)
        if self._balances:
            attachment.weigh_classes(balanced_weights(labels_of(train_dataloader), model.config.num_labels))
            self.config = attachment.config
        attachment.trained_on, attachment.selected_by = fingerprints_of(train_dataloader), None
        self._in_training = True
        if state.global_step > 0:
            self._refuse_other_checkpoint(state)
            attachment.note_longest_row(self.longest_row or 0)
        attachment.loss_reached, self._checks_exits = False, True
        self._standings, self._standings_at = {}, {}
        self._losses.clear()
        self._step_losses.clear()
        self._forget_evaluation()
        if self.config.mode in ("sweet", DECOUPLED) or self.config.learn_to_exit:
            self._take_over_clipping(args)
        if self.config.trains_exits_alone:
            attachment.freeze_model()  # an earlier training ended with it unfrozen

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Seeds the exits' dropout by the step, so that a training resumed draws what one in one piece draws."""
        attachment_of(model).seed_dropout(args.seed, state.global_step, args.process_index)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Clips the gradients, by group, once they are known to be finite and to train the exits."""
        attachment = attachment_of(model)
        if self._checks_exits:
            refuse_untrained_exits(attachment)
            self._checks_exits = False
        self._step_losses.add(attachment.exit_losses)
        if self._users_max_norm is None or self._users_max_norm <= 0.0:
            norm = gradient_norm(model.parameters())
        else:
            norms = clip_by_group(attachment.clipping_groups(), self._users_max_norm)
            norm = self._gradient_norm = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
        refuse_divergence(model, state.global_step + 1, self._step_losses.sums(), norm)
        self._step_losses.clear()
        if self.config.has_private_layers:
            self._exit_rate.before_step(parameter for _, parameter in attachment.head_parameters())

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lengthens the step of the exits' own parts."""
        self._exit_rate.after_step()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Notes the exits' losses of the last micro-batch of a step."""
        attachment = attachment_of(model)
        self._losses.add(attachment.exit_losses)
        self.longest_row = attachment.config.longest_row

    def on_substep_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Notes the exits' losses of the other micro-batches of a step."""
        losses = attachment_of(model).exit_losses
        self._losses.add(losses)
        self._step_losses.add(losses)

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
            self._predictions.add(attachment.exit_logits, attachment.labels, inputs)
            self._label_loss = attachment.label_loss

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' losses to a training log, and the exits' metrics to an evaluation's."""
        if logs is None:
            return
        if "loss" in logs and "learning_rate" in logs:
            added = {f"loss_exit_{exit_}": round(mean, 4) for exit_, mean in self._losses.take().items()}
            if "grad_norm" not in logs and self._gradient_norm is not None:
                added["grad_norm"] = self._gradient_norm.item()
        else:
            added = self._take_metrics(logs, args, state)
        logs.update(added)
        if state.log_history and added:
            state.log_history[-1].update(added)  # the Trainer appended a copy before it called us

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

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Hands clipping back to the Trainer, and says what the last evaluation found wanting."""
        self._in_training = False
        if (attachment := attachment_of(model)) is not None:
            attachment.unfreeze_model()
        if args.max_grad_norm is self._our_zero:
            args.max_grad_norm = self._users_max_norm
        self._users_max_norm = None
        self._gradient_norm = None
        if self.summarizes and state.is_world_process_zero:
            for prefix, standing in self._standings_of_the_model(args, state).items():
                for sentence in standing.complaints():
                    logger.warning("%s: %s", prefix, sentence)

    def _standings_of_the_model(self, args: TrainingArguments, state: TrainerState) -> dict[str, Standing]:
        """The results of the evaluation of the model that training ends with."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            step = state.best_model_checkpoint.rpartition("-")[2]
            return self._standings_at.get(int(step), {}) if step.isdigit() else {}
        return self._standings

    def _take_over(self, attachment: Attachment, model: Any) -> None:
        if attachment.model is not model:
            raise TrainingSetupError(WRAPPED_LATER)
        asked = self.config
        if asked.exits is None:
            asked = dataclasses.replace(asked, exits=attachment.exits)
        if self._balances:
            asked = dataclasses.replace(asked, class_weights=attachment.config.class_weights)
        asked = asked.resolved(attachment.exits[-1])
        if asked != attachment.config:
            raise TrainingSetupError(
                f"the model has exits attached with {attachment.config}, and the callback asks for {asked}: "
                "give both the same settings, or call detach(model) first."
            )
        self.config = attachment.config
        if self.loss is not None:
            attachment.lose_by(self.loss)
        if self.teacher is not None:
            refuse_other_labels(self.teacher, model)
            attachment.teacher = Teacher(self.teacher)

    def _refuse_other_checkpoint(self, state: TrainerState) -> None:
        recorded = (state.stateful_callbacks or {}).get(type(self).__name__)
        recorded = recorded[0] if isinstance(recorded, list) else recorded
        if not recorded:
            raise TrainingSetupError(
                "the checkpoint to resume from was written without exits, so it holds no exit heads and "
                "their optimizer state: load its weights as the model and start training without "
                "resume_from_checkpoint."
            )
        attributes = recorded.get("attributes", {})
        before = SweetConfig.from_dict({**recorded["args"], "loss": attributes.get("loss_name")})
        self.longest_row = attributes.get("longest_row")
        if before != self.config:
            raise TrainingSetupError(
                f"the checkpoint to resume from was trained with {before}, and the callback asks for "
                f"{self.config}: resume with the former, or start training anew."
            )

    def _take_over_clipping(self, args: TrainingArguments) -> None:
        """Makes the Trainer clip nothing: it clips one global norm if `args.max_grad_norm` is positive.

        An earlier train() that raised has left our zero there; the user's value is then still the remembered
        one.
        """
        if args.max_grad_norm is not self._our_zero:
            self._users_max_norm = args.max_grad_norm
            args.max_grad_norm = self._our_zero

    def _take_metrics(self, logs: Mapping[str, Any], args: TrainingArguments, state: TrainerState) -> dict[str, float]:
        # Every evaluation and prediction says how long it took, under its own prefix.
        prefixes = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")]
        speeds = [name for name in prefixes if f"{name}_samples_per_second" in logs]
        prefix = min(speeds, key=len, default=None)
        if prefix is None or not self._predictions:
            return {}
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
