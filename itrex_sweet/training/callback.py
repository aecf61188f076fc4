"""Training exits with an unmodified Hugging Face Trainer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import EvalPrediction, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from itrex_sweet.config import SweetConfig
from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training.attaching import attach, attachment_of
from itrex_sweet.training.attachment import WRAPPED_LATER, Attachment
from itrex_sweet.training.clipping import clip_by_group
from itrex_sweet.training.exit_metrics import ExitPredictions, mean_over_processes
from itrex_sweet.training.teacher import Teacher
from itrex_sweet.training.trained_rows import fingerprints_of


class SweetCallback(TrainerCallback, ExportableState):
    """Puts exits on the Trainer's model and trains them: `Trainer(..., callbacks=[SweetCallback()])`.

    The loss becomes the sum of all exits' losses, every training log gets `loss_exit_4` and so on, and every
    evaluation `eval_exit_4_accuracy` and `eval_exit_4_loss` for each exit, which `metric_for_best_model` may
    name. In `sweet` mode gradients are clipped to `args.max_grad_norm` per segment, since a global norm would
    couple the exits.

    Callbacks run in order and the Trainer puts those of `report_to` before yours, so they see a log without
    the exits' losses: to have them there, pass `report_to="none"` and the reporting callback after this one.

    Args:
        exits: counts of encoder layers after which the model may answer, the last the full depth; `None`
            takes those the model was saved with, or `default_exits` of its depth.
        mode: `"sweet"`, `"paper"` or `"joint"`, see `SweetConfig`.
        gradient_scale: share in [0, 1] of the gradient that passes from a segment to the one before it, for all cuts
            or one each; or `"cut_first"`, see `SweetConfig`.
        learn_to_exit: every exit but the last also learns how likely it is right, for the criterion `"learned"`;
            nothing else of the training is changed by it.
        distillation: share in [0, 1] of each exit's loss that comes from a teacher, see `SweetConfig`.
        distillation_temperature: of it.
        teacher: a fine-tuned classification model with the same labels and tokenizer; the last exit if absent.
        compute_metrics: as the Trainer's, applied to every exit: a value named `matthews` is reported as
            `eval_exit_4_matthews`.

    Raises:
        ConfigError: settings that are wrong by themselves; when the Trainer is made, exits that do not fit
            the model.
        UnsupportedModelError: when the Trainer is made, a model that cannot carry exits.
        TrainingSetupError: when the Trainer is made or training begins, what would silently train something
            else.
    """

    def __init__(
        self,
        exits: Iterable[int] | None = None,
        mode: str = "sweet",
        gradient_scale: float | str | Iterable[float] = 0.0,
        compute_metrics: Callable[[EvalPrediction], Mapping[str, Any]] | None = None,
        learn_to_exit: bool = False,
        distillation: float = 0.0,
        distillation_temperature: float = 2.0,
        teacher: nn.Module | None = None,
    ):
        exits = None if exits is None else tuple(exits)
        self.config = SweetConfig(exits, mode, gradient_scale, learn_to_exit, distillation, distillation_temperature)
        if teacher is not None and distillation == 0.0:
            raise ConfigError("teacher without distillation: say with distillation=0.5 how much of the loss is its.")
        self.teacher = teacher
        self.compute_metrics = compute_metrics
        self.has_compute_metrics = compute_metrics is not None
        self._losses = _RunningMeans()
        self._predictions = ExitPredictions()
        self._evaluated: Any = None
        self._users_max_norm: float | None = None
        self._our_zero = float("0")  # an object of its own, to tell our zero from one that the user set
        self._gradient_norm: torch.Tensor | None = None

    def state(self) -> dict[str, Any]:
        """What `trainer_state.json` records of the settings, in the Trainer's own form."""
        return {
            "args": self.config.to_dict(),
            "attributes": {"has_compute_metrics": self.has_compute_metrics},
        }

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Attaches the exits, before there is an optimizer."""
        _refuse_unfit(args)
        self._take_over(attachment_of(model) or attach(model, self.config), model)

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
        _refuse_unfit(args)
        attachment = attachment_of(model)
        if attachment is None:
            raise TrainingSetupError(
                "the model in training has no exits. The Trainer makes a new one with model_init after its "
                "callbacks have run: call itrex_sweet.attach(model, SweetConfig(...)) inside model_init; or "
                "add SweetCallback when the Trainer is made, not with add_callback."
            )
        self._take_over(attachment, model)
        if self.has_compute_metrics and self.compute_metrics is None:
            raise TrainingSetupError(
                "restore_callback_states_from_checkpoint made SweetCallback anew without its compute_metrics "
                "function. Leave it off: SweetCallback has no state to restore."
            )
        _refuse_optimizer_without_heads(attachment, optimizer)
        attachment.trained_on = fingerprints_of(train_dataloader)
        if state.global_step > 0:
            self._refuse_other_checkpoint(state)
        self._losses.clear()
        self._forget_evaluation()
        if self.config.mode == "sweet" or self.config.learn_to_exit:
            self._take_over_clipping(args)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Clips the gradients, by group."""
        if self._users_max_norm is None or self._users_max_norm <= 0.0:
            return
        norms = clip_by_group(attachment_of(model).clipping_groups(), self._users_max_norm)
        self._gradient_norm = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Notes the exits' losses of the last micro-batch of a step."""
        self._losses.add(attachment_of(model).exit_losses)

    def on_substep_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Notes the exits' losses of the other micro-batches of a step."""
        self._losses.add(attachment_of(model).exit_losses)

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
            self._predictions.add(attachment.exit_logits, attachment.labels)

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
            added = self._take_metrics(logs)
        logs.update(added)
        if state.log_history and added:
            state.log_history[-1].update(added)  # the Trainer appended a copy before it called us

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the exits' metrics where a Trainer's own `log` kept them from us."""
        if metrics is not None:
            metrics.update(self._take_metrics(metrics))
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
        metrics.update(self._take_metrics(metrics))
        self._forget_evaluation()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hands clipping back to the Trainer."""
        if args.max_grad_norm is self._our_zero:
            args.max_grad_norm = self._users_max_norm
        self._users_max_norm = None
        self._gradient_norm = None

    def _take_over(self, attachment: Attachment, model: Any) -> None:
        if attachment.model is not model:
            raise TrainingSetupError(WRAPPED_LATER)
        asked = self.config
        if asked.exits is None:
            asked = dataclasses.replace(asked, exits=attachment.exits)
        asked = asked.resolved(attachment.exits[-1])
        if asked != attachment.config:
            raise TrainingSetupError(
                f"the model has exits attached with {attachment.config}, and the callback asks for {asked}: "
                "give both the same settings, or call detach(model) first."
            )
        self.config = attachment.config
        if self.teacher is not None:
            _refuse_other_labels(self.teacher, model)
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
        before = SweetConfig.from_dict(recorded["args"])
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

    def _take_metrics(self, logs: Mapping[str, Any]) -> dict[str, float]:
        # Every evaluation and prediction says how long it took, under its own prefix.
        prefixes = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")]
        speeds = [name for name in prefixes if f"{name}_samples_per_second" in logs]
        prefix = min(speeds, key=len, default=None)
        if prefix is None or not self._predictions:
            return {}
        metrics = self._predictions.metrics(prefix, self.compute_metrics)
        self._forget_evaluation()
        return metrics

    def _forget_evaluation(self) -> None:
        self._predictions.clear()
        self._evaluated = None


class _RunningMeans:
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

    def clear(self) -> None:
        self._sums, self._count = {}, 0


def _refuse_unfit(args: TrainingArguments) -> None:
    """Refuses arguments under which exits would silently not train, or train something else."""
    problems = {
        "label_smoothing_factor": (
            args.label_smoothing_factor != 0,
            "the Trainer then takes the labels from the model, and exits would never train. Leave it at 0",
        ),
        "fp16": (args.fp16, "gradients are scaled where per-segment clipping reads them. Use bf16=True"),
        "n_gpu > 1": (
            args.n_gpu > 1,
            "DataParallel trains copies of the model, whose exits are lost. Start with torchrun (DDP), or "
            "set CUDA_VISIBLE_DEVICES to one device",
        ),
        "torch_compile": (
            args.torch_compile or os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no",
            "exits live in module hooks, which a compiled model may skip. Leave it off, and unset "
            "ACCELERATE_DYNAMO_BACKEND, where the Trainer keeps it for the whole process",
        ),
        "deepspeed": (
            bool(getattr(args, "deepspeed", None)) or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true",
            "segments are clipped and checked as whole parameters. Use DDP",
        ),
        "fsdp": (
            bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true",
            "segments are clipped and checked as whole parameters. Use DDP",
        ),
    }
    for name, (is_set, reason) in problems.items():
        if is_set:
            raise TrainingSetupError(f"{name} does not go with exits: {reason}.")


def _refuse_other_labels(teacher: Any, model: Any) -> None:
    taught, ours = (getattr(each.config, "num_labels", None) for each in (teacher, model))
    if teacher is model or taught != ours:
        raise TrainingSetupError(
            f"the teacher has {taught} labels and the model {ours}: it is another model, fine-tuned on the same labels."
        )


def _refuse_optimizer_without_heads(attachment: Attachment, optimizer: Any) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [
        name
        for name, parameter in attachment.head_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]
    if missing:
        raise TrainingSetupError(
            f"the optimizer does not hold {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}, so "
            "these would never train: call itrex_sweet.attach(model, SweetConfig(...)) first and create the "
            "optimizer after it, or leave the optimizer to the Trainer."
        )
