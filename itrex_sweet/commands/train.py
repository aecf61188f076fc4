"""Fine-tune a pretrained model with exits and write the artifact.

Every field of transformers' TrainingArguments is an option too, spelled --learning-rate or --learning_rate.
The defaults here are --num-train-epochs 3, --per-device-train-batch-size 32, --learning-rate 5e-5 (2e-4 with
--lora) and --seed 42; nothing is reported to outside services. The Trainer's own files go to DIR/checkpoints
and stay only if --save-strategy is given."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.commands.evaluate import labelled_rows, make_folder, shown
from itrex_sweet.config import MODES, resolve_exits
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, InputError, SweetError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

    from itrex_sweet.artifact import Artifact

SUMMARY = "fine-tune a model with exits"
TAKES_MORE = True  # the fields of TrainingArguments
EPILOG = """\
examples:
  itrex-sweet train --model bert-base-uncased --train-file train.csv --validation-file dev.csv --output out
  itrex-sweet train --model roberta-base --dataset glue --dataset-config sst2 --exits 1,4,6,12 --output out
"""

MULTI_MODEL = "multi-model"
CHECKPOINTS = "checkpoints"
DEFAULT_MAX_LENGTH = 256  # tokens, as in the paper
_LORA_RANK = 8
_TIMED_ROWS = 128

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet train`, those of TrainingArguments aside."""
    parser.add_argument(
        "--model", required=True, metavar="PATH_OR_ID", help="pretrained model, a folder or on the hub"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the artifact goes")
    data = parser.add_argument_group("data", ".csv, .tsv or .jsonl (also .gz), or a datasets name")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--train-file", metavar="FILE")
    source.add_argument(
        "--dataset", metavar="NAME", help="name on the hub, or a folder, that datasets can load"
    )
    data.add_argument(
        "--validation-file", metavar="FILE", help="to evaluate on after every epoch and at the end"
    )
    data.add_argument(
        "--dataset-config", metavar="NAME", help="configuration of the data set, such as sst2 of glue"
    )
    data.add_argument("--train-split", default="train", metavar="NAME", help="of --dataset (default: train)")
    data.add_argument(
        "--validation-split",
        default="validation",
        metavar="NAME",
        help="of --dataset; '' for none (default: validation)",
    )
    data.add_argument(
        "--limit", type=options.positive, metavar="N", help="read only the first N rows of each"
    )
    data.add_argument(
        "--max-length",
        type=options.positive,
        default=DEFAULT_MAX_LENGTH,
        metavar="N",
        help=f"tokens per text; longer ones are cut (default: {DEFAULT_MAX_LENGTH})",
    )
    options.add_columns(parser)
    method = parser.add_argument_group("method")
    method.add_argument(
        "--exits",
        type=options.whole_numbers,
        nargs="+",
        metavar="LAYERS",
        help="counts of layers, the last the full depth: 1 4 6 12 or 1,4,6,12 (default: in that proportion)",
    )
    method.add_argument(
        "--mode",
        choices=(*MODES, MULTI_MODEL),
        default=MODES[0],
        help="sweet: each layer is updated by the next exit only; paper: as its code did; joint: plain "
        "summed losses; multi-model: independent models, run as a cascade (default: sweet)",
    )
    method.add_argument(
        "--gradient-scale",
        type=float,
        metavar="S",
        help="share in [0, 1] of the gradient that passes between segments",
    )
    method.add_argument(
        "--lora", type=options.positive, nargs="?", const=_LORA_RANK, metavar="RANK",
        help=f"train low-rank adapters, merged at the end, not all weights (rank {_LORA_RANK} if not given)",
    )  # fmt: skip
    method.add_argument("--freeze-backbone", action="store_true", help="train the exit heads alone")
    parser.add_argument("--json", action="store_true", help="print the final evaluation as JSON")


def run(args: argparse.Namespace) -> int:
    """Trains, writes the artifact and its card, and prints what the exits are worth."""
    plan = _plan(args)
    make_folder(args.output)
    train, validation = _read_data(args)

    from transformers import set_seed

    names = train.label_names or tuple(f"LABEL_{label}" for label in range(train.num_labels))
    tokenizer = _loaded("tokenizer", args.model)
    exits = resolve_exits(plan.exits, _depth(args.model))
    set_seed(plan.arguments.seed)
    model = _loaded("model", args.model, names)
    make_trainer = _TrainerMaker(args, plan, model, tokenizer, train, validation)
    before = plan.checkpoints.exists()
    try:
        # The Trainer prints its logs on standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            artifact = _train(args, plan, exits, model, tokenizer, make_trainer, train)
    finally:
        if not plan.keeps_checkpoints and not before:
            shutil.rmtree(plan.checkpoints, ignore_errors=True)
    _conclude(args, artifact, validation)
    return 0


# ---------------------------------------------------------------------------------- before training


@dataclass
class _Plan:
    """What was asked for, checked.

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


def _plan(args: argparse.Namespace) -> _Plan:
    usage_error: Callable[[str], Any] = args.parser.error
    if args.validation_file and args.dataset:
        usage_error("--validation-file goes with --train-file; --dataset has --validation-split")
    if args.lora and args.freeze_backbone:
        usage_error("--lora and --freeze-backbone exclude each other: adapters lie in the backbone")
    if args.gradient_scale is not None:
        if not 0.0 <= args.gradient_scale <= 1.0:
            usage_error(
                f"argument --gradient-scale: {args.gradient_scale}: a share of the gradient lies in [0, 1]"
            )
        if args.mode in ("joint", MULTI_MODEL):
            usage_error(f"--gradient-scale has no meaning with --mode {args.mode}, which cuts no gradient")
    arguments, given = _training_arguments(args)
    checkpoints = args.output / CHECKPOINTS
    return _Plan(
        arguments=arguments,
        exits=None if args.exits is None else tuple(exit_ for part in args.exits for exit_ in part),
        checkpoints=checkpoints,
        keeps_checkpoints="save_strategy" in given and arguments.save_strategy != "no",
        resume_from=_checkpoint(arguments.resume_from_checkpoint, checkpoints, args.mode),
    )


def _training_arguments(args: argparse.Namespace) -> tuple[TrainingArguments, set[str]]:
    """TrainingArguments from what is left of the command line, and the names of the fields given there."""
    given = {
        re.split("=", part)[0].lstrip("-").replace("-", "_") for part in args.more if part.startswith("--")
    }
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
    return parsed, given


def _refuse_unknown(args: argparse.Namespace, parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    """Ends with a usage error that names the option most alike."""
    name = next((part for part in unknown if part.startswith("-")), unknown[0]).split("=")[0]
    known = {
        option
        for each in (args.parser, parser)
        for action in each._actions
        for option in action.option_strings
    }
    alike = difflib.get_close_matches(
        name.replace("_", "-"), [option for option in known if "_" not in option], n=1
    )
    hint = f"; did you mean {alike[0]}?" if alike else ""
    args.parser.error(f"{name} is neither an option of train nor a field of TrainingArguments{hint}")


def _checkpoint(asked: str | None, checkpoints: Path, mode: str) -> str | None:
    """The checkpoint to resume from: a folder, or for `true` or `last` the latest there is."""
    if asked is None or asked.lower() in ("false", ""):
        return None
    if mode == MULTI_MODEL:
        raise ConfigError(
            "--resume-from-checkpoint: several models have several checkpoints; multi-model starts anew."
        )
    if asked.lower() in ("true", "last"):
        from transformers.trainer_utils import get_last_checkpoint

        found = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        if found is None:
            raise ConfigError(f"--resume-from-checkpoint {asked}: there is none in {checkpoints}.")
        return found
    if not Path(asked).is_dir():
        raise ConfigError(f"--resume-from-checkpoint {asked}: no such folder.")
    return asked


def _read_data(args: argparse.Namespace) -> tuple[Rows, Rows | None]:
    """Training and validation rows, whose labels are the same."""
    train = labelled_rows(
        args, args.train_file or args.dataset, args.train_split if args.dataset else None, None
    )
    if train.num_labels < 2:
        raise InputError(f"{train.source}: only one label, so there is nothing to tell apart.")
    source = args.validation_file or (args.dataset if args.validation_split else None)
    if source is None:
        return train, None
    names = train.label_names or tuple(str(label) for label in range(train.num_labels))
    return train, labelled_rows(args, source, args.validation_split if args.dataset else None, names)


# ---------------------------------------------------------------------------------- models


def _depth(name: str) -> int:
    from itrex_sweet.families import family_of

    config = _loaded("config", name)
    family_of(config)
    return config.num_hidden_layers


def _loaded(what: str, name: str, label_names: tuple[str, ...] | None = None) -> Any:
    """The config, tokenizer or model of a name, or one line on why not."""
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    try:
        if what == "config":
            return AutoConfig.from_pretrained(name)
        if what == "tokenizer":
            return AutoTokenizer.from_pretrained(name)
        return AutoModelForSequenceClassification.from_pretrained(
            name,
            num_labels=len(label_names),
            id2label=dict(enumerate(label_names)),
            label2id={label: place for place, label in enumerate(label_names)},
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SweetError(f"the {what} of {name} cannot be loaded: {reason}") from error


class _TrainerMaker:
    """Makes a Trainer for a model; every model gets the same data and arguments."""

    def __init__(
        self,
        args: argparse.Namespace,
        plan: _Plan,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        train: Rows,
        validation: Rows | None,
    ):
        self.args, self.plan, self.tokenizer = args, plan, tokenizer
        length = min(args.max_length, tokenizer.model_max_length, _longest(model))
        self.train = _tokenized(tokenizer, train, length)
        self.validation = None if validation is None else _tokenized(tokenizer, validation, length)

    def __call__(self, model: PreTrainedModel, folder: Path, callbacks: list[Any]) -> Trainer:
        import dataclasses

        from transformers import DataCollatorWithPadding, Trainer

        return Trainer(
            self._prepared(model),
            dataclasses.replace(self.plan.arguments, output_dir=str(folder)),
            train_dataset=self.train,
            eval_dataset=self.validation,
            data_collator=DataCollatorWithPadding(self.tokenizer),
            processing_class=self.tokenizer,
            compute_metrics=_accuracy,
            callbacks=callbacks,
        )

    def _prepared(self, model: PreTrainedModel) -> Any:
        if self.args.freeze_backbone:
            return _frozen(model)
        return _with_lora(model, self.args.lora) if self.args.lora else model


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    """The model with nothing but its own head left to train; exit heads come later."""
    from itrex_sweet.families import family_of

    family = family_of(model.config)
    model.requires_grad_(False)
    for path in (family.head_dense, family.head_out):
        model.get_submodule(path).requires_grad_(True)
    return model


def _with_lora(model: PreTrainedModel, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise SweetError(
            "--lora needs peft, which is not installed: pip install 'itrex-sweet[peft]'."
        ) from error

    return get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank, lora_dropout=0.05)
    )


def _longest(model: PreTrainedModel) -> int:
    """Tokens that a model's positions allow."""
    from itrex_sweet.families import family_of

    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        return DEFAULT_MAX_LENGTH**2
    skipped = (model.config.pad_token_id or 0) + 1 if family_of(model.config).positions_skip_padding else 0
    return positions - skipped


def _tokenized(tokenizer: PreTrainedTokenizerBase, rows: Rows, length: int) -> list[dict[str, Any]]:
    from itrex_sweet.evaluation.progress import progress

    examples = []
    for start in progress(range(0, len(rows), 1000), "tokenizing", unit="batch"):
        texts, labels = rows.texts[start : start + 1000], (rows.labels or [])[start : start + 1000]
        parts = (texts,) if isinstance(texts[0], str) else tuple(map(list, zip(*texts, strict=True)))
        encoded = tokenizer(*parts, truncation=True, max_length=length)
        examples += [
            {**{name: values[row] for name, values in encoded.items()}, "label": label}
            for row, label in enumerate(labels)
        ]
    return examples


def _accuracy(prediction: Any) -> dict[str, float]:
    logits: np.ndarray = (
        prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    )
    return {"accuracy": float((logits.argmax(axis=-1) == prediction.label_ids).mean())}


# ---------------------------------------------------------------------------------- training, and after


def _train(
    args: argparse.Namespace,
    plan: _Plan,
    exits: tuple[int, ...],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    make_trainer: _TrainerMaker,
    train: Rows,
) -> Artifact:
    from itrex_sweet.training import SweetCallback, save_artifact, save_cascade, train_multi_model

    provenance = _provenance(args, plan, exits, train)
    if args.mode == MULTI_MODEL:
        folder = plan.checkpoints
        models = train_multi_model(
            model, exits, lambda part, exit_: make_trainer(part, folder / f"exit_{exit_}", [])
        )
        return save_cascade(models, args.output, tokenizer, provenance=provenance)
    callback = SweetCallback(exits=exits, mode=args.mode, gradient_scale=args.gradient_scale or 0.0)
    trainer = make_trainer(model, plan.checkpoints, [callback])
    trainer.train(resume_from_checkpoint=plan.resume_from)
    return save_artifact(trainer.model, args.output, tokenizer, provenance=provenance)


def _provenance(args: argparse.Namespace, plan: _Plan, exits: tuple[int, ...], train: Rows) -> dict[str, Any]:
    """Settings that make the run repeatable; of local paths only the last part."""
    arguments = plan.arguments
    return {
        "base_model": Path(args.model).resolve().name if Path(args.model).exists() else args.model,
        "data": args.dataset if args.dataset else Path(args.train_file).name,
        "mode": args.mode,
        "exits": list(exits),
        "gradient_scale": args.gradient_scale or 0.0,
        "adapters": f"LoRA, rank {args.lora}" if args.lora else "none",
        "freeze_backbone": args.freeze_backbone,
        "rows": len(train),
        "epochs": arguments.num_train_epochs,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
        "max_length": args.max_length,
        "seed": arguments.seed,
    }


def _conclude(args: argparse.Namespace, artifact: Artifact, validation: Rows | None) -> None:
    """The artifact as it will be used, measured; its card; and the tables on standard output."""
    from itrex_sweet.artifact import write_card
    from itrex_sweet.evaluation.evaluation import evaluate
    from itrex_sweet.evaluation.model_card import render_card
    from itrex_sweet.modeling import SweetModelForSequenceClassification

    evaluation = None
    if validation is not None:
        model = SweetModelForSequenceClassification.from_pretrained(artifact.directory)
        evaluation = evaluate(
            model,
            validation.texts,
            validation.labels or [],
            artifact.directory.name,
            timed_rows=_TIMED_ROWS,
            max_length=args.max_length,
        )
    on_hub = args.model if not Path(args.model).exists() else None
    described = (
        f"{args.dataset}, {args.validation_split}" if args.dataset else Path(args.validation_file or "").name
    )
    dataset = args.dataset if args.dataset and not Path(args.dataset).exists() else None
    write_card(
        artifact, render_card(artifact, evaluation, data=described, base_model=on_hub, dataset=dataset)
    )
    logger.info("Wrote %s.", artifact.directory)
    if evaluation is not None:
        print(
            json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) if args.json else shown(evaluation)
        )
