"""Refuses, before training or after its first step, what would silently train something else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainingArguments

from itrex_sweet.errors import ConfigError, TrainingSetupError
from itrex_sweet.training.attachment import Attachment
from itrex_sweet.training.model_inputs import embeddings_of
from itrex_sweet.training.peft_models import underlying_model


def refuse_unfit(args: TrainingArguments) -> None:
    """Refuses arguments under which exits would silently not train, or train something else."""
    problems = {
        "label_smoothing_factor": (
            args.label_smoothing_factor != 0,
            "the Trainer then takes the labels from the model, and exits would never train. Leave it at 0, and pass "
            "SweetCallback(loss=torch.nn.CrossEntropyLoss(label_smoothing=...))",
        ),
        "fp16": (
            args.fp16 or (not args.bf16 and os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower() == "fp16"),
            "gradients are scaled where per-segment clipping reads them. Use bf16=True, and unset "
            "ACCELERATE_MIXED_PRECISION, which accelerate launch --mixed_precision sets",
        ),
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


def refuse_other_labels(teacher: Any, model: Any) -> None:
    taught, ours = (getattr(each.config, "num_labels", None) for each in (teacher, model))
    if teacher is model or taught != ours:
        raise TrainingSetupError(
            f"the teacher has {taught} labels and the model {ours}: it is another model, fine-tuned on the same labels."
        )


def refuse_optimizer_without_heads(attachment: Attachment, optimizer: Any) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [
        name
        for name, parameter in attachment.head_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]
    if missing:
        raise TrainingSetupError(
            f"the optimizer does not hold {_some(missing)}, so "
            "these would never train: call itrex_sweet.attach(model, SweetConfig(...)) first and create the "
            "optimizer after it, or leave the optimizer to the Trainer."
        )


def refuse_large_tokenizer(tokenizer: Any, model: Any) -> None:
    """Refuses a tokenizer with more ids than the model has embeddings for; other objects pass.

    Raises:
        ConfigError: it names both sizes.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return
    known = embeddings_of(underlying_model(model))
    if len(tokenizer) > known:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens and the model embeddings for {known}: it is another model's, "
            "or has tokens added, for which model.resize_token_embeddings(len(tokenizer)) makes room."
        )


def refuse_untrained_exits(attachment: Attachment) -> None:
    """Raises, before the first step is taken, where its backward has not come through the exits' losses.

    Heads that are frozen are passed over. What reached a head by another way than its loss, such as a penalty on all
    weights, does not count.

    Raises:
        TrainingSetupError: it says who may have replaced the loss, and what to do.
    """
    parameters = [(name, one) for name, one in attachment.head_parameters() if one.requires_grad]
    without = [name for name, parameter in parameters if parameter.grad is None]
    if not without and (attachment.loss_reached or not parameters):
        return
    names = without or [name for name, _ in parameters]
    raise TrainingSetupError(
        f"the first step trained no exit but the last: its gradient did not come through the sum of the exits' losses, "
        f"outputs.loss, and {_some(names)} would learn nothing. A Trainer subclass that works its loss out of "
        "outputs.logits (class weights, focal loss) trains the last exit alone: let compute_loss return outputs.loss, "
        "or add to it, and give class weights or another loss to SweetCallback(class_weights=..., loss=...), which "
        "apply at every exit."
    )


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
