"""Checks the options of `itrex-sweet train` before data and models are loaded."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.config import DECOUPLED
from itrex_sweet.defaults import (
    DEFAULT_EPOCHS,
    DEFAULT_LEARNING_RATE,
    DEFAULT_TRAINING_BATCH_SIZE,
    DEFAULT_TRAINING_SEED,
)
from itrex_sweet.errors import ConfigError

if TYPE_CHECKING:
    from transformers import TrainingArguments

MULTI_MODEL = "multi-model"
CHECKPOINTS = "checkpoints"
_LORA_LEARNING_RATE = 2e-4

_RULES = {  # for fields of TrainingArguments, which takes any number
    **dict.fromkeys(("num_train_epochs", "adam_epsilon"), options.positive_number),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm"), options.non_negative_number),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), options.share),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), options.positive),
    **dict.fromkeys(("gradient_accumulation_steps",), options.positive),
    **dict.fromkeys(("seed", "data_seed", "dataloader_num_workers"), options.count),
}


@dataclass
class TrainingPlan:
    """The checked options.

    Args:
        arguments: arguments of the Trainer.
        exits: exits from the command line, or `None`.
        checkpoints: folder of the Trainer's files.
        keeps_checkpoints: keep that folder after training.
        resume_from: checkpoint to resume from, or `None`.
    """

    arguments: TrainingArguments
    exits: tuple[int, ...] | None
    checkpoints: Path
    keeps_checkpoints: bool
    resume_from: str | None


def make_plan(args: argparse.Namespace) -> TrainingPlan:
    """Checks options that depend on each other; exits with a usage error if they contradict.

    Raises:
        ConfigError: the checkpoint to resume from does not exist.
    """
    usage_error: Callable[[str], Any] = args.parser.error
    if args.validation_file and args.dataset:
        usage_error("--validation-file goes with --train-file; --dataset has --validation-split")
    if args.lora and args.freeze_backbone:
        usage_error("--lora and --freeze-backbone exclude each other: adapters are in the backbone")
    if args.gradient_scale is not None and args.mode not in ("sweet", "paper"):
        usage_error(f"--gradient-scale has no effect with --mode {args.mode}: use it with --mode sweet or paper")
    if args.exit_lr_multiplier is not None and args.mode != DECOUPLED:
        usage_error(f"--exit-lr-multiplier has no effect with --mode {args.mode}: use it with --mode {DECOUPLED}")
    if args.teacher and (args.distillation == 0.0 or (args.distillation is None and args.mode != DECOUPLED)):
        usage_error("--teacher needs --distillation, the weight of its loss")
    if "--two-stage" in args.more:
        usage_error(
            f"--two-stage was removed: --mode {DECOUPLED}, the default, trains model and exits in one run, and the "
            "model as without exits; for a fine-tuned model use itrex-sweet add-exits"
        )
    if args.mode == MULTI_MODEL and (args.distillation or args.learn_to_exit):
        usage_error("--distillation and --learn-to-exit are for exits of one model, not for --mode multi-model")
    arguments, given = _training_arguments(args)
    checkpoints = args.output / CHECKPOINTS
    return TrainingPlan(
        arguments=arguments,
        exits=None if args.exits is None else tuple(exit_ for part in args.exits for exit_ in part),
        checkpoints=checkpoints,
        keeps_checkpoints="save_strategy" in given and arguments.save_strategy != "no",
        resume_from=_checkpoint(arguments.resume_from_checkpoint, checkpoints, args.mode),
    )


def _training_arguments(args: argparse.Namespace) -> tuple[TrainingArguments, set[str]]:
    """Parses TrainingArguments from the remaining arguments; returns them and the names of the given fields."""
    given = {re.split("=", part)[0].lstrip("-").replace("-", "_") for part in args.more if part.startswith("--")}
    if given & {"output_dir", "do_train", "do_eval", "do_predict"}:
        args.parser.error("use --output; --output-dir and --do-... are not supported")

    import torch
    from transformers import HfArgumentParser, TrainingArguments

    parser = HfArgumentParser(TrainingArguments, prog=args.parser.prog, add_help=False, allow_abbrev=False)
    parser.error = args.parser.error
    for action in parser._actions:
        if action.type in (float, int):
            action.type = _RULES.get(action.dest, options.finite_number if action.type is float else int)
    evaluates = bool(args.validation_file or (args.dataset and args.validation_split))
    parser.set_defaults(
        output_dir=str(args.output / CHECKPOINTS),
        num_train_epochs=DEFAULT_EPOCHS,
        per_device_train_batch_size=DEFAULT_TRAINING_BATCH_SIZE,
        per_device_eval_batch_size=DEFAULT_TRAINING_BATCH_SIZE,
        learning_rate=_LORA_LEARNING_RATE if args.lora else DEFAULT_LEARNING_RATE,
        seed=DEFAULT_TRAINING_SEED,
        eval_strategy="epoch" if evaluates else "no",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=torch.accelerator.is_available(),  # torch warns without one
    )
    if "load_best_model_at_end" in given and "eval_strategy" not in given:
        parser.set_defaults(save_strategy="epoch")
    try:
        parsed, unknown = parser.parse_args_into_dataclasses(args.more, return_remaining_strings=True)
    except (ValueError, ImportError) as error:  # from the checks of TrainingArguments
        args.parser.error(str(error))
    if unknown:
        _refuse_unknown(args, parser, unknown)
    return parsed, given


def _refuse_unknown(args: argparse.Namespace, parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Ends the program with a usage error that suggests the most similar option."""
    name = next((part for part in unknown if part.startswith("-")), unknown[0]).split("=")[0]
    known = {option for each in (args.parser, parser) for action in each._actions for option in action.option_strings}
    similar = difflib.get_close_matches(name.replace("_", "-"), [option for option in known if "_" not in option], n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ""
    args.parser.error(f"{name} is neither an option of train nor a field of TrainingArguments{hint}")


def _checkpoint(requested: str | None, checkpoints: Path, mode: str) -> str | None:
    """Returns the checkpoint to resume from: the given folder, or the latest one for `true` and `last`."""
    if requested is None or requested.lower() in ("false", ""):
        return None
    if mode == MULTI_MODEL:
        raise ConfigError(
            "--resume-from-checkpoint: --mode multi-model cannot resume; each of its models has its own checkpoints."
        )
    if requested.lower() in ("true", "last"):
        from transformers.trainer_utils import get_last_checkpoint

        found = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        if found is None:
            raise ConfigError(f"--resume-from-checkpoint {requested}: there is none in {checkpoints}.")
        return found
    if not Path(requested).is_dir():
        raise ConfigError(f"--resume-from-checkpoint {requested}: no such folder.")
    return requested
