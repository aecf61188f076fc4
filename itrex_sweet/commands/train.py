"""Fine-tune a pretrained model with exits and write the artifact.

Every field of transformers' TrainingArguments is an option too, spelled --learning-rate or --learning_rate.
The defaults here are --num-train-epochs 3, --per-device-train-batch-size 32, --learning-rate 5e-5 (2e-4 with
--lora) and --seed 42; nothing is reported to outside services. The Trainer's own files go to DIR/checkpoints
and stay only if --save-strategy is given."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.commands.evaluate import labelled_rows, make_folder, shown
from itrex_sweet.commands.trainers import (
    DEFAULT_MAX_LENGTH,
    TrainerMaker,
    depth_of,
    load_pretrained,
)
from itrex_sweet.commands.training_plan import MULTI_MODEL, TrainingPlan, make_plan
from itrex_sweet.config import DEFAULT_EXIT_LR_MULTIPLIER, MODES, SweetConfig, resolve_exits
from itrex_sweet.data import Rows
from itrex_sweet.errors import InputError, MissingExtraError, SweetError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from itrex_sweet.artifact import Artifact
    from itrex_sweet.evaluation import Evaluation

SUMMARY = "fine-tune a model with exits"
TAKES_MORE = True  # the fields of TrainingArguments
EPILOG = """\
examples:
  itrex-sweet train --model bert-base-uncased --train-file train.csv --validation-file dev.csv --output out
  itrex-sweet train --model roberta-base --dataset glue --dataset-config sst2 --exits 1,4,6,12 --output out
"""

_LORA_RANK = 8
_TIMED_ROWS = 128

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet train`, those of TrainingArguments aside."""
    parser.add_argument("--model", required=True, metavar="PATH_OR_ID", help="pretrained model, a folder or on the hub")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="where the artifact goes")
    options.add_threads(parser)
    data = parser.add_argument_group("data", ".csv, .tsv or .jsonl (also .gz), or a datasets name")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--train-file", metavar="FILE")
    source.add_argument("--dataset", metavar="NAME", help="name on the hub, or a folder, that datasets can load")
    data.add_argument("--validation-file", metavar="FILE", help="to evaluate on after every epoch and at the end")
    data.add_argument("--dataset-config", metavar="NAME", help="configuration of the data set, such as sst2 of glue")
    data.add_argument("--train-split", default="train", metavar="NAME", help="of --dataset (default: train)")
    data.add_argument(
        "--validation-split",
        default="validation",
        metavar="NAME",
        help="of --dataset; '' for none (default: validation)",
    )
    data.add_argument("--limit", type=options.positive, metavar="N", help="read only the first N rows of each")
    data.add_argument(
        "--max-length",
        type=options.positive,
        metavar="N",
        help=f"tokens per text; longer ones are cut (default: {DEFAULT_MAX_LENGTH}). If given, the saved tokenizer "
        "cuts there too",
    )
    options.add_columns(parser)
    method = parser.add_argument_group("method")
    method.add_argument(
        "--exits",
        type=options.whole_numbers,
        nargs="+",
        metavar="LAYERS",
        help="counts of layers, the last the full depth: 1 4 6 12 or 1,4,6,12 (default: that fit the depth)",
    )
    method.add_argument(
        "--mode",
        choices=(*MODES, MULTI_MODEL),
        default=SweetConfig().mode,
        help="decoupled: exits have a copy of their last layer, and the model trains as without exits; sweet: each "
        "layer is updated by the next exit only; paper: as its code did; joint: plain summed losses; multi-model: "
        "independent models, run as a cascade (default: %(default)s)",
    )
    method.add_argument(
        "--exit-lr-multiplier", type=options.positive_number, metavar="TIMES",
        help="learning rate of the exits' own parts with --mode decoupled, as a multiple of --learning-rate (default: "
        f"{DEFAULT_EXIT_LR_MULTIPLIER:g})",
    )  # fmt: skip
    method.add_argument(
        "--gradient-scale", type=options.gradient_scale, metavar="S",
        help="with --mode sweet or paper, share in [0, 1] of the gradient that passes between segments, for all or one "
        "each, such as 0.1,0.3,1; or cut_first: 0 behind the first exit, 1 behind the others",
    )  # fmt: skip
    method.add_argument(
        "--distillation", type=options.share, metavar="SHARE",
        help="share of each exit's loss that comes from a teacher: the last exit, or --teacher; 0.5 with --mode "
        "decoupled if not given",
    )  # fmt: skip
    method.add_argument(
        "--class-weights", type=options.class_weights, metavar="W",
        help="weight of each label in every exit's loss, such as 1,2.5; or balanced: the rarer the heavier",
    )  # fmt: skip
    method.add_argument("--teacher", metavar="PATH_OR_ID", help="a fine-tuned model that the exits learn from")
    method.add_argument(
        "--learn-to-exit", action="store_true", help="exits also learn how likely they are right (criterion learned)"
    )
    method.add_argument(
        "--lora", type=options.positive, nargs="?", const=_LORA_RANK, metavar="RANK",
        help=f"train low-rank adapters, merged at the end, not all weights (rank {_LORA_RANK} if not given)",
    )  # fmt: skip
    method.add_argument("--freeze-backbone", action="store_true", help="train the exit heads alone")
    parser.add_argument("--json", action="store_true", help="print the final evaluation as JSON")


def run(args: argparse.Namespace) -> int:
    """Trains, writes the artifact and its card, and prints what the exits are worth."""
    from itrex_sweet.runtime.torch_threads import computing_with

    with computing_with(args.threads):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    plan = make_plan(args)
    make_folder(args.output)
    train, validation = _read_data(args)

    from transformers import set_seed

    from itrex_sweet.training.training_data import effective_max_length
    from itrex_sweet.training.validation import check_tokenizer

    names = _names_of(train)
    tokenizer = load_pretrained("tokenizer", args.model)
    exits = resolve_exits(plan.exits, depth_of(args.model))
    set_seed(plan.arguments.seed)
    model = load_pretrained("model", args.model, names)
    check_tokenizer(tokenizer, model)
    if args.max_length:  # the runtime truncates texts to the same length
        tokenizer.model_max_length = effective_max_length(tokenizer, model, args.max_length)
    make_trainer = TrainerMaker(args, plan, model, tokenizer, train, validation)
    before = plan.checkpoints.exists()
    try:
        # The Trainer prints its logs on standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            artifact = _train(args, plan, exits, model, tokenizer, make_trainer, train)
    except MissingExtraError:
        raise
    except ImportError as error:  # of what an option of TrainingArguments needs
        raise SweetError(f"an option needs a package that is missing: {error}") from error
    finally:
        if not plan.keeps_checkpoints and not before:
            shutil.rmtree(plan.checkpoints, ignore_errors=True)
    _conclude(args, artifact, validation)
    return 0


# ---------------------------------------------------------------------------------- before training


def _read_data(args: argparse.Namespace) -> tuple[Rows, Rows | None]:
    """Training and validation rows, whose labels are the same."""
    train = labelled_rows(args, args.train_file or args.dataset, args.train_split if args.dataset else None, None)
    if len(set(train.labels or [])) < 2:
        raise InputError(f"{train.source}: only one label, so there is nothing to tell apart.")
    source = args.validation_file or (args.dataset if args.validation_split else None)
    if source is None:
        return train, None
    return train, labelled_rows(args, source, args.validation_split if args.dataset else None, _names_of(train))


def _names_of(rows: Rows) -> tuple[str, ...]:
    """Names of the labels, by id, as the model's config will hold them."""
    return rows.label_names or tuple(f"LABEL_{label}" for label in range(rows.num_labels))


# ---------------------------------------------------------------------------------- training, and after


def _train(
    args: argparse.Namespace,
    plan: TrainingPlan,
    exits: tuple[int, ...],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    make_trainer: TrainerMaker,
    train: Rows,
) -> Artifact:
    from itrex_sweet.training import (
        DivergenceCallback,
        SweetCallback,
        save_artifact,
        save_cascade,
        train_multi_model,
    )

    if args.mode == MULTI_MODEL:
        provenance = _provenance(args, plan, exits, train, SweetConfig(mode="joint"))  # its models have no exits
        folder = plan.checkpoints
        models = train_multi_model(
            model,
            exits,
            lambda part, exit_: make_trainer(part, folder / f"exit_{exit_}", [DivergenceCallback()], plain=True),
        )
        return save_cascade(models, args.output, tokenizer, provenance=provenance)
    names = tuple(model.config.id2label[label] for label in range(model.config.num_labels))
    settings = {"mode": args.mode, "learn_to_exit": args.learn_to_exit}
    settings |= {
        name: value
        for name in ("gradient_scale", "distillation", "exit_lr_multiplier")
        if (value := getattr(args, name)) is not None
    }
    teacher = load_pretrained("model", args.teacher, names) if args.teacher else None
    callback = SweetCallback(exits, teacher=teacher, class_weights=make_trainer.class_weights, **settings)
    callback.logs_diagnostics = False  # the warnings are logged for the artifact instead
    provenance = _provenance(args, plan, exits, train, callback.config)
    trainer = make_trainer(model, plan.checkpoints, [callback])
    trainer.train(resume_from_checkpoint=plan.resume_from)
    return save_artifact(trainer.model, args.output, tokenizer, provenance=provenance)


def _provenance(
    args: argparse.Namespace, plan: TrainingPlan, exits: tuple[int, ...], train: Rows, config: SweetConfig
) -> dict[str, Any]:
    """Settings that make the run repeatable; of local paths only the last part."""
    arguments = plan.arguments
    return {
        "base_model": Path(args.model).resolve().name if Path(args.model).exists() else args.model,
        "data": args.dataset if args.dataset else Path(args.train_file).name,
        "mode": args.mode,
        "exits": list(exits),
        "gradient_scale": config.to_dict()["gradient_scale"],
        "learn_to_exit": args.learn_to_exit,
        "distillation": config.distillation,
        "exit_lr_multiplier": config.exit_lr_multiplier,
        "class_weights": args.class_weights,
        "teacher": Path(args.teacher).name if args.teacher else None,
        "adapters": f"LoRA, rank {args.lora}" if args.lora else "none",
        "freeze_backbone": args.freeze_backbone,
        "rows": len(train),
        "epochs": arguments.num_train_epochs,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
        "max_length": args.max_length or DEFAULT_MAX_LENGTH,
        "seed": arguments.seed,
    }


def _conclude(args: argparse.Namespace, artifact: Artifact, validation: Rows | None) -> None:
    """The artifact as it will be used, measured; its card; and the tables on standard output."""
    from itrex_sweet.artifact import write_card
    from itrex_sweet.artifact.fingerprints import Fingerprints
    from itrex_sweet.evaluation.evaluation import evaluate
    from itrex_sweet.evaluation.model_card import render_card
    from itrex_sweet.modeling import SweetModelForSequenceClassification

    evaluation = reported_on = None
    length = args.max_length or DEFAULT_MAX_LENGTH
    if validation is not None:
        model = SweetModelForSequenceClassification.from_pretrained(artifact.directory)
        evaluation = evaluate(
            model,
            validation.texts,
            validation.labels or [],
            artifact.directory.name,
            timed_rows=_TIMED_ROWS,
            max_length=length,
        )
        reported_on = Fingerprints.of(model.read(validation.texts, length).rows())
    on_hub = args.model if not Path(args.model).exists() else None
    described = f"{args.dataset}, {args.validation_split}" if args.dataset else Path(args.validation_file or "").name
    dataset = args.dataset if args.dataset and not Path(args.dataset).exists() else None
    card = render_card(artifact, evaluation, data=described, base_model=on_hub, dataset=dataset)
    write_card(artifact, card, reported_on)
    logger.info("Wrote %s.", artifact.directory)
    if evaluation is not None:
        print(json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) if args.json else shown(evaluation))
        _say_what_it_is_worth(evaluation, validation.labels or [])


def _say_what_it_is_worth(evaluation: Evaluation, labels: Sequence[int]) -> None:
    """Warns, in words, of exits at chance or below the majority class, and where no row leaves early."""
    from itrex_sweet.training.exit_diagnostics import ExitDiagnostics

    report = evaluation.report
    early = sum(exit_.share_leaving for exit_ in report.exits[:-1]) if len(report.exits) > 1 else None
    thresholds = ", ".join(f"{value:g}" for value in report.policy.thresholds)
    accuracies = {exit_.exit: exit_.metric for exit_ in report.exits}
    for sentence in ExitDiagnostics.of(labels, accuracies, early, f"the stored thresholds ({thresholds})").warnings():
        logger.warning("%s", sentence)
