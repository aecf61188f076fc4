"""Checks the arguments of `itrex-sweet train` before anything is loaded."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.config import DECOUPLED
from itrex_sweet.errors import ConfigError

if TYPE_CHECKING:
    from transformers import TrainingArguments

MULTI_MODEL = "multi-model"
CHECKPOINTS = "checkpoints"


@dataclass
class TrainingPlan:
    """The checked arguments.

    Args:
        arguments: for the Trainer.
        exits: as given, or `None`.
        checkpoints: folder of the Trainer's own files.
        keeps_checkpoints: whether they stay when training is done.
        resume_from: a checkpoint to go on from, if any.
    """

    arguments: TrainingArguments
    exits: tuple[int, ...] | None
    checkpoints: Path
    keeps_checkpoints: bool
    resume_from: str | None


def make_plan(args: argparse.Namespace) -> TrainingPlan:
    """Checks the options of `train` that depend on one another; what cannot be is a usage error.

    Raises:
        ConfigError: a checkpoint to resume from that is not there.
    """
    usage_error: Callable[[str], Any] = args.parser.error
    if args.validation_file and args.dataset:
        usage_error("--validation-file goes with --train-file; --dataset has --validation-split")
    if args.lora and args.freeze_backbone:
        usage_error("--lora and --freeze-backbone exclude each other: adapters lie in the backbone")
    if args.gradient_scale is not None and args.mode not in ("sweet", "paper"):
        usage_error(f"--gradient-scale has no meaning with --mode {args.mode}: it goes with --mode sweet or paper")
    if args.exit_lr_multiplier is not None and args.mode != DECOUPLED:
        usage_error(f"--exit-lr-multiplier goes with --mode {DECOUPLED}, not {args.mode}")
    if args.teacher and (args.distillation == 0.0 or (args.distillation is None and args.mode != DECOUPLED)):
        usage_error("--teacher needs --distillation: how much of the loss is its")
    if "--two-stage" in args.more:
        usage_error(
            f"--two-stage is gone: --mode {DECOUPLED}, the default, trains model and exits in one run, and the model "
            "as well as without exits; for a model that is fine-tuned already there is itrex-sweet add-exits"
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
    """TrainingArguments from what is left of the command line, and the names of the fields given there."""
    given = {re.split("=", part)[0].lstrip("-").replace("-", "_") for part in args.more if part.startswith("--")}
    if given & {"output_dir", "do_train", "do_eval", "do_predict"}:
        args.parser.error("--output says where everything goes; --output-dir and --do-... are not used")

    from transformers import HfArgumentParser, TrainingArguments

    parser = HfArgumentParser(TrainingArguments, prog=args.parser.prog, add_help=False, allow_abbrev=False)
    parser.error = args.parser.error
    evaluates = bool(args.validation_file or (args.dataset and args.validation_split))
    parser.set_defaults(
        output_dir=str(args.output / CHECKPOINTS),
        num_train_epochs=3.0,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,
        learning_rate=2e-4 if args.lora else 5e-5,
        seed=42,
        eval_strategy="epoch" if evaluates else "no",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
    )
    if "load_best_model_at_end" in given and "eval_strategy" not in given:
        parser.set_defaults(save_strategy="epoch")
    try:
        parsed, unknown = parser.parse_args_into_dataclasses(args.more, return_remaining_strings=True)
    except (ValueError, ImportError) as error:  # TrainingArguments' own checks
        args.parser.error(str(error))
    if unknown:
        _refuse_unknown(args, parser, unknown)
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(parsed, name) < 1:
            args.parser.error(f"--{name.replace('_', '-')} {getattr(parsed, name)}: a whole number from 1")
    return parsed, given


def _refuse_unknown(args: argparse.Namespace, parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Ends with a usage error that names the option most alike."""
    name = next((part for part in unknown if part.startswith("-")), unknown[0]).split("=")[0]
    known = {option for each in (args.parser, parser) for action in each._actions for option in action.option_strings}
    alike = difflib.get_close_matches(name.replace("_", "-"), [option for option in known if "_" not in option], n=1)
    hint = f"; did you mean {alike[0]}?" if alike else ""
    args.parser.error(f"{name} is neither an option of train nor a field of TrainingArguments{hint}")


def _checkpoint(asked: str | None, checkpoints: Path, mode: str) -> str | None:
    """The checkpoint to resume from: a folder, or for `true` or `last` the latest there is."""
    if asked is None or asked.lower() in ("false", ""):
        return None
    if mode == MULTI_MODEL:
        raise ConfigError("--resume-from-checkpoint: several models have several checkpoints; multi-model starts anew.")
    if asked.lower() in ("true", "last"):
        from transformers.trainer_utils import get_last_checkpoint

        found = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        if found is None:
            raise ConfigError(f"--resume-from-checkpoint {asked}: there is none in {checkpoints}.")
        return found
    if not Path(asked).is_dir():
        raise ConfigError(f"--resume-from-checkpoint {asked}: no such folder.")
    return asked
