"""Fine-tune a pretrained model with exits and write the artifact.

Every field of transformers' TrainingArguments is also an option, spelled --learning-rate or --learning_rate. The
defaults are --num-train-epochs 3, --per-device-train-batch-size 32, --learning-rate 5e-5 (2e-4 with --lora), --seed 42
and --report-to none. The Trainer writes its files to DIR/checkpoints; they are removed unless --save-strategy is
given.
"""

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
    TASK_OPTIONS,
    TrainerFactory,
    depth_of,
    load_pretrained,
    task_for,
)
from itrex_sweet.commands.training_plan import MULTI_MODEL, TrainingPlan, make_plan
from itrex_sweet.config import (
    DECOUPLED,
    DEFAULT_DISTILLATION,
    DEFAULT_EXIT_LR_MULTIPLIER,
    MODES,
    SweetConfig,
    resolve_exits,
)
from itrex_sweet.data import Rows
from itrex_sweet.errors import ConfigError, InputError, MissingExtraError, SweetError
from itrex_sweet.tasks import REGRESSION, TASKS, task_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from itrex_sweet.artifact import Artifact
    from itrex_sweet.evaluation import Evaluation

SUMMARY = "fine-tune a pretrained model with exits"
TAKES_MORE = True  # the fields of TrainingArguments
EPILOG = """\
examples:
  itrex-sweet train --model bert-base-uncased --train-file train.csv --validation-file dev.csv --output out
  itrex-sweet train --model roberta-base --dataset glue --dataset-config sst2 --exits 1,4,6,12 --output out
"""

_TRAIN_SPLIT, _VALIDATION_SPLIT = "train", "validation"
_LORA_RANK = 8

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet train`, except those of TrainingArguments."""
    parser.add_argument(
        "--model", required=True, metavar="PATH_OR_ID", help="pretrained model, a folder or a name on the Hub"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the artifact")
    options.add_threads(parser)
    data = parser.add_argument_group("data", ".csv, .tsv or .jsonl (also .gz), or a datasets name")
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--train-file", metavar="FILE", help="labelled texts to train on")
    source.add_argument(
        "--dataset", metavar="NAME", help="data set for datasets.load_dataset, a name on the Hub or a folder"
    )
    data.add_argument(
        "--validation-file", metavar="FILE", help="data for the evaluation after every epoch and at the end"
    )
    data.add_argument("--dataset-config", metavar="NAME", help="configuration of the data set, such as sst2 of glue")
    data.add_argument(
        "--train-split", default=_TRAIN_SPLIT, metavar="NAME", help="split of --dataset (default: %(default)s)"
    )
    data.add_argument(
        "--validation-split",
        default=_VALIDATION_SPLIT,
        metavar="NAME",
        help="split of --dataset; '' for none (default: %(default)s)",
    )
    data.add_argument("--limit", type=options.positive, metavar="N", help="read only the first N rows of each")
    data.add_argument(
        "--max-length",
        type=options.positive,
        metavar="N",
        help=f"maximum number of tokens per text; longer texts are truncated (default: {DEFAULT_MAX_LENGTH}). If "
        "given, the saved tokenizer has the same limit",
    )
    options.add_columns(parser)
    data.add_argument(
        "--task", choices=TASK_OPTIONS,
        help="single-label; multi-label: labels as a list, as names separated by | or in columns of 1 and 0, "
        "--label-column A,B,C; regression: labels are numbers (default: the model's problem_type, or single-label)",
    )  # fmt: skip
    method = parser.add_argument_group("method")
    method.add_argument(
        "--exits",
        type=options.layers,
        nargs="+",
        metavar="LAYERS",
        help="numbers of layers, the last the full depth: 1 4 6 12 or 1,4,6,12",
    )
    method.add_argument(
        "--mode",
        choices=(*MODES, MULTI_MODEL),
        default=SweetConfig().mode,
        help="decoupled: each exit has a private copy of its last layer, and the model trains as without exits; sweet: "
        "each layer is updated by the next exit only; paper: as the paper's code; joint: sum of the losses; "
        "multi-model: independent models, run as a cascade (default: %(default)s)",
    )
    method.add_argument(
        "--exit-lr-multiplier", type=options.positive_number, metavar="TIMES",
        help="learning rate of the exits with --mode decoupled, as a multiple of --learning-rate (default: "
        f"{DEFAULT_EXIT_LR_MULTIPLIER:g})",
    )  # fmt: skip
    method.add_argument(
        "--gradient-scale", type=options.gradient_scale, metavar="S",
        help="with --mode sweet or paper: factor in [0, 1] of the gradient between segments, one for all or "
        "one each, such as 0.1,0.3,1; or cut_first: 0 after the first exit, 1 after the others",
    )  # fmt: skip
    method.add_argument(
        "--distillation", type=options.share, metavar="SHARE",
        help="weight in [0, 1] of the distillation loss, from the last exit or --teacher (default: "
        f"{DEFAULT_DISTILLATION:g} with --mode {DECOUPLED}, otherwise 0)",
    )  # fmt: skip
    method.add_argument(
        "--class-weights", type=options.class_weights, metavar="W",
        help="weight of each label in the loss of every exit, such as 1,2.5; or balanced: inverse to its frequency",
    )  # fmt: skip
    method.add_argument("--teacher", metavar="PATH_OR_ID", help="fine-tuned model for the distillation of the exits")
    method.add_argument(
        "--learn-to-exit",
        action="store_true",
        help="also train the criterion learned: each exit predicts whether it is correct",
    )
    method.add_argument(
        "--lora", type=options.positive, nargs="?", const=_LORA_RANK, metavar="RANK",
        help=f"train low-rank adapters, merged at the end, instead of all weights (default rank: {_LORA_RANK})",
    )  # fmt: skip
    method.add_argument("--freeze-backbone", action="store_true", help="train the exit heads only")
    parser.add_argument("--json", action="store_true", help="print the final evaluation as JSON")


def run(args: argparse.Namespace) -> int:
    """Trains, writes the artifact and its card, and prints the evaluation of the exits."""
    from itrex_sweet.runtime.torch_threads import computing_with

    with computing_with(args.threads):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    plan = make_plan(args)
    make_folder(args.output)
    task = task_for(args.task, args.model)
    if task == REGRESSION and args.mode == MULTI_MODEL:
        raise ConfigError(
            f"--mode {MULTI_MODEL} --task regression: independent models do not estimate their errors, so none can "
            "answer early; choose another mode."
        )
    train, validation = _read_data(args, task)

    from transformers import set_seed

    from itrex_sweet.training.training_data import effective_max_length
    from itrex_sweet.training.validation import check_tokenizer

    names = _names_of(train, task)
    tokenizer = load_pretrained("tokenizer", args.model)
    exits = resolve_exits(plan.exits, depth_of(args.model))
    set_seed(plan.arguments.seed)
    model = load_pretrained("model", args.model, names, task)
    check_tokenizer(tokenizer, model)
    if args.max_length:  # texts are truncated in the same way at run time
        tokenizer.model_max_length = effective_max_length(tokenizer, model, args.max_length)
    make_trainer = TrainerFactory(args, plan, model, tokenizer, train, validation)
    before = plan.checkpoints.exists()
    try:
        # The Trainer prints its logs to standard output, which is reserved for results.
        with contextlib.redirect_stdout(sys.stderr):
            artifact = _train(args, plan, exits, model, tokenizer, make_trainer, train)
    except MissingExtraError:
        raise
    except ImportError as error:  # of a package that an option of TrainingArguments needs
        raise SweetError(f"an option needs a package that is not installed: {error}") from error
    finally:
        if not plan.keeps_checkpoints and not before:
            shutil.rmtree(plan.checkpoints, ignore_errors=True)
    _conclude(args, artifact, validation)
    return 0


# ---------------------------------------------------------------------------------- before training


def _read_data(args: argparse.Namespace, task: str) -> tuple[Rows, Rows | None]:
    """Reads training and validation rows with the same labels."""
    split = args.train_split if args.dataset else None
    train = labelled_rows(args, args.train_file or args.dataset, split, None, task)
    if len(set(map(str, train.labels or []))) < 2:
        raise InputError(f"{train.source}: all rows have the same label.")
    source = args.validation_file or (args.dataset if args.validation_split else None)
    if source is None:
        return train, None
    names = None if task == REGRESSION else _names_of(train, task)
    return train, labelled_rows(args, source, args.validation_split if args.dataset else None, names, task)


def _names_of(rows: Rows, task: str) -> tuple[str, ...]:
    """Returns the label names by id, as in the model's config; one for a regression."""
    if task == REGRESSION:
        return ("LABEL_0",)
    return rows.label_names or tuple(f"LABEL_{label}" for label in range(rows.num_labels))


# ---------------------------------------------------------------------------------- training, and after


def _train(
    args: argparse.Namespace,
    plan: TrainingPlan,
    exits: tuple[int, ...],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    make_trainer: TrainerFactory,
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
        provenance = _provenance(
            args, plan, exits, train, SweetConfig(mode="joint")
        )  # the models of a cascade have no exits
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
    task = task_of(model.config).name
    teacher = load_pretrained("model", args.teacher, names, task, is_fine_tuned=True) if args.teacher else None
    callback = SweetCallback(exits, teacher=teacher, class_weights=make_trainer.class_weights, **settings)
    callback.logs_diagnostics = False  # `_conclude` reports on the artifact
    provenance = _provenance(args, plan, exits, train, callback.config)
    trainer = make_trainer(model, plan.checkpoints, [callback])
    trainer.train(resume_from_checkpoint=plan.resume_from)
    return save_artifact(trainer.model, args.output, tokenizer, provenance=provenance)


def _provenance(
    args: argparse.Namespace, plan: TrainingPlan, exits: tuple[int, ...], train: Rows, config: SweetConfig
) -> dict[str, Any]:
    """Returns the settings of the run; of local paths only the last part."""
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
        **({} if args.task is None else {"task": args.task}),
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
    """Evaluates the artifact, writes its card and prints the tables."""
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
        _warn_of_useless_exits(evaluation, validation.labels or [])


def _warn_of_useless_exits(evaluation: Evaluation, labels: Sequence[Any]) -> None:
    """Warns of exits that learned nothing, and of a policy with which no row exits early."""
    from itrex_sweet.training.exit_diagnostics import ExitDiagnostics

    report = evaluation.report
    early = sum(exit_.share_leaving for exit_ in report.exits[:-1]) if len(report.exits) > 1 else None
    thresholds = ", ".join(f"{value:g}" for value in report.policy.thresholds)
    diagnostics = ExitDiagnostics.of(
        TASKS[report.policy.task],
        labels,
        {exit_.exit: exit_.metric for exit_ in report.exits},
        {exit_.exit: exit_.association for exit_ in report.exits},
        early,
        f"the stored thresholds ({thresholds})",
    )
    for sentence in diagnostics.warnings():
        logger.warning("%s", sentence)
