"""Checks of models, arguments, tokenizers and optimizers that would otherwise train something else silently."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from itrex_sweet.artifact.layout import CONFIG_FILE
from itrex_sweet.artifact.model_config import resolved_config
from itrex_sweet.artifact.validation.values import ADVICE
from itrex_sweet.errors import ArtifactError, ConfigError, TrainingSetupError, UnsupportedModelError
from itrex_sweet.tasks import task_of
from itrex_sweet.training.model_io import vocabulary_size
from itrex_sweet.training.peft_models import is_peft_model, unwrap_peft_model

if TYPE_CHECKING:
    from itrex_sweet.training.attachment import Attachment

_MAX_NAMES = 4


def check_model_config(config: PretrainedConfig) -> None:
    """Rejects a model whose artifact could not be loaded, before it is trained.

    Raises:
        ConfigError: names the field of the config.
        UnsupportedModelError: a family or variant without exits.
    """
    fields = json.loads(config.to_json_string())  # as `save_pretrained` writes it
    fields.pop("sweet", None)
    try:
        resolved_config(fields, None, Path(CONFIG_FILE))
    except UnsupportedModelError:
        raise
    except ArtifactError as error:
        reason = str(error).removesuffix(ADVICE).strip()
        raise ConfigError(
            f"the model's {reason} Correct model.config, or the trained model cannot be loaded."
        ) from error


def check_training_arguments(args: TrainingArguments) -> None:
    """Rejects arguments that do not work with exits.

    Raises:
        TrainingSetupError: names the argument, the reason and the replacement.
    """
    problems = {
        "label_smoothing_factor": (
            args.label_smoothing_factor != 0,
            "the Trainer then takes the labels from the model, and exits would never train. Leave it at 0, and pass "
            "SweetCallback(loss=torch.nn.CrossEntropyLoss(label_smoothing=...))",
        ),
        "fp16": (
            args.fp16 or (not args.bf16 and os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower() == "fp16"),
            "the gradients are scaled when per-segment clipping reads them. Use bf16=True, and unset "
            "ACCELERATE_MIXED_PRECISION, which accelerate launch --mixed_precision sets",
        ),
        "n_gpu > 1": (
            args.n_gpu > 1,
            "DataParallel trains copies of the model, whose exits are lost. Start with torchrun (DDP), or "
            "set CUDA_VISIBLE_DEVICES to one device",
        ),
        "torch_compile": (
            args.torch_compile or os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no",
            "exits are computed in module hooks, which a compiled model may skip. Leave it off, and unset "
            "ACCELERATE_DYNAMO_BACKEND, where the Trainer keeps it for the whole process",
        ),
        "deepspeed": (
            bool(getattr(args, "deepspeed", None)) or os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true",
            "gradients are clipped and checked on whole parameters, which it partitions. Use DDP",
        ),
        "fsdp": (
            bool(args.fsdp) or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true",
            "gradients are clipped and checked on whole parameters, which it partitions. Use DDP",
        ),
    }
    for name, (is_set, reason) in problems.items():
        if is_set:
            raise TrainingSetupError(f"{name} does not go with exits: {reason}.")


def check_not_wrapped(model: Any) -> None:
    """Accepts a Hugging Face model, or a PEFT model around one, and rejects any other wrapper.

    Raises:
        TrainingSetupError: `torch.compile(model)`, DataParallel or DistributedDataParallel: hooks on the wrapped model
            may be skipped, or belong to temporary copies.
        UnsupportedModelError: any other object.
    """
    if isinstance(model, PreTrainedModel) or is_peft_model(model):
        return
    if isinstance(model, nn.Module) and hasattr(model, "_orig_mod"):
        raise TrainingSetupError(
            "the model was compiled by torch.compile before it had exits, which are hooks that compiled code may skip: "
            "pass the original model, and do not compile it for training."
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise TrainingSetupError(
            f"the model is wrapped in {type(model).__name__}: attach to the model itself, model.module, and wrap it "
            "afterwards. DataParallel trains copies of the model, whose exits are lost: use DistributedDataParallel."
        )
    raise UnsupportedModelError(
        f"{type(model).__name__} cannot carry exits: they go on a Hugging Face classification model, "
        "AutoModelForSequenceClassification.from_pretrained(...), or a PEFT model around one."
    )


def check_teacher(teacher: Any, model: Any) -> None:
    """Checks that a teacher is another model with as many labels.

    Raises:
        TrainingSetupError: it is the model itself, or has another number of labels.
    """
    teacher_labels, labels = (getattr(each.config, "num_labels", None) for each in (teacher, model))
    if teacher is model:
        raise TrainingSetupError("the teacher is the model in training: pass another, fine-tuned model.")
    tasks = [task_of(each.config).name for each in (teacher, model)]
    if tasks[0] != tasks[1]:
        raise TrainingSetupError(
            f"the teacher has problem_type={tasks[0]!r} and the model {tasks[1]!r}: pass a teacher fine-tuned for the "
            "same task."
        )
    if teacher_labels != labels:
        raise TrainingSetupError(
            f"the teacher has {teacher_labels} labels and the model {labels}: pass a teacher fine-tuned on the same "
            "labels."
        )


def check_vocabulary_size(tokenizer: Any, model: Any) -> None:
    """Checks that the model has an embedding for every token id. Objects that are no tokenizer pass.

    Raises:
        ConfigError: names both sizes.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    size = vocabulary_size(unwrap_peft_model(model))
    if len(tokenizer) > size:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {size} embeddings: the tokenizer belongs to "
            "another model, or tokens were added, which needs model.resize_token_embeddings(len(tokenizer))."
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Checks that a tokenizer can make batches for a model.

    Raises:
        ConfigError: more tokens than embeddings, or no padding token.
    """
    check_vocabulary_size(tokenizer, model)
    if tokenizer.pad_token is None:
        raise ConfigError("the tokenizer has no padding token, so texts of different lengths make no batch: set one.")


def check_optimizer(attachment: Attachment, optimizer: Any) -> None:
    """Checks that the optimizer holds the parameters of the exit heads.

    Raises:
        TrainingSetupError: names those that it does not hold.
    """
    in_optimizer = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [
        name
        for name, parameter in attachment.head_parameters()
        if parameter.requires_grad and id(parameter) not in in_optimizer
    ]
    if missing:
        raise TrainingSetupError(
            f"the optimizer does not hold {_abbreviated(missing)}, so "
            "these would never train: call itrex_sweet.attach(model, SweetConfig(...)) first and create the "
            "optimizer after it, or leave the optimizer to the Trainer."
        )


def check_gradients_reached_exits(attachment: Attachment) -> None:
    """Checks, before the first optimizer step, that backward went through the exits' losses.

    Frozen heads are skipped. A gradient from elsewhere, such as a penalty on all weights, does not count.

    Raises:
        TrainingSetupError: no gradient came through the losses; names the likely cause and the remedy.
    """
    parameters = [(name, one) for name, one in attachment.head_parameters() if one.requires_grad]
    without = [name for name, parameter in parameters if parameter.grad is None]
    if not without and (attachment.loss_received_gradient or not parameters):
        return
    names = without or [name for name, _ in parameters]
    raise TrainingSetupError(
        f"the first step trained no exit but the last: no gradient came through the sum of the exits' losses, "
        f"outputs.loss, and {_abbreviated(names)} would learn nothing. A Trainer subclass that computes its loss from "
        "outputs.logits (class weights, focal loss) trains the last exit alone: let compute_loss return outputs.loss, "
        "or add to it, and give class weights or another loss to SweetCallback(class_weights=..., loss=...), which "
        "apply at every exit."
    )


def _abbreviated(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_MAX_NAMES])}{' …' if len(names) > _MAX_NAMES else ''}"
