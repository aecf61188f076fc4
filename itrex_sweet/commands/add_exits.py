"""Add exits to a plain fine-tuned classifier, with unlabelled texts.

The model is frozen: its weights do not change. Each exit learns the probabilities of the model at full depth; labels
in FILE are ignored. Exits whose outputs do not depend on the text are removed and reported. Calibrate afterwards, on
other texts: itrex-sweet calibrate DIR --max-agreement-drop 0.01. itrex-sweet accelerate runs all steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.defaults import (
    DEFAULT_EPOCHS,
    DEFAULT_LEARNING_RATE,
    DEFAULT_TRAINING_BATCH_SIZE,
    DEFAULT_TRAINING_SEED,
)

if TYPE_CHECKING:
    from itrex_sweet.acceleration import AddedExits

SUMMARY = "add exits to a fine-tuned model, without labels"
EPILOG = """\
exit status: 0 done, 1 failed, 2 wrong usage, 3 no exit learned anything

example:
  itrex-sweet add-exits my-deployed-classifier --data traffic.jsonl --output my-classifier
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet add-exits`."""
    parser.add_argument(
        "model", metavar="MODEL", help="fine-tuned Hugging Face classifier, a folder or a name on the Hub"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="texts: .txt, .csv, .tsv, .jsonl (.gz), .parquet, or a datasets name",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of the artifact (default: the model's name followed by -exits)",
    )
    add_traffic(parser)
    add_training(parser, "in the proportion 1 2 4 6 of 6 layers")
    options.add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the texts: number of rows and columns."""
    options.add_named_dataset(parser)
    parser.add_argument("--limit", type=options.positive, metavar="N", help="read only the first N texts")
    options.add_columns(parser, labels=False)


def add_training(parser: argparse.ArgumentParser, default_exits: str) -> None:
    """Adds the options for the training of exits."""
    group = parser.add_argument_group("training of the exits")
    group.add_argument(
        "--exits",
        type=options.layers,
        nargs="+",
        metavar="LAYERS",
        help=f"numbers of layers, the last the full depth (default: {default_exits})",
    )
    group.add_argument(
        "--epochs",
        type=options.positive_number,
        default=DEFAULT_EPOCHS,
        metavar="N",
        help="passes over the texts (default: %(default)g)",
    )
    group.add_argument(
        "--learning-rate",
        type=options.positive_number,
        default=DEFAULT_LEARNING_RATE,
        metavar="RATE",
        help="(default: %(default)g)",
    )
    group.add_argument(
        "--batch-size",
        type=options.positive,
        default=DEFAULT_TRAINING_BATCH_SIZE,
        metavar="N",
        help="(default: %(default)s)",
    )
    group.add_argument(
        "--max-length",
        type=options.positive,
        metavar="N",
        help="maximum number of tokens per training text; longer texts are truncated (default: the limit of the model)",
    )
    group.add_argument("--seed", type=options.count, default=DEFAULT_TRAINING_SEED, help="(default: %(default)s)")


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `add_traffic` and `add_training` as arguments of the Python functions."""
    return dict(
        exits=None if args.exits is None else tuple(exit_ for part in args.exits for exit_ in part),
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        max_length=args.max_length,
        seed=args.seed,
        limit=args.limit,
        text_column=args.text_column,
        pair_column=args.pair_column,
        split=args.split,
        dataset_config=args.dataset_config,
    )


def run(args: argparse.Namespace) -> int:
    """Trains exits, writes the artifact and prints the agreement of each exit."""
    from itrex_sweet.acceleration import add_exits
    from itrex_sweet.runtime.torch_threads import computing_with

    output = args.output or Path(f"{Path(args.model).resolve().name}-exits")
    # The Trainer prints its logs to standard output, which is reserved for results.
    with computing_with(args.threads), contextlib.redirect_stdout(sys.stderr):
        added = add_exits(args.model, args.data, output, **training_options(args))
    if args.json:
        print(json.dumps(_facts(added), indent=2))
    else:
        print(_shown(added))
    return 0


def _facts(added: AddedExits) -> dict[str, Any]:
    return {
        "directory": str(added.artifact.directory),
        "exits": list(added.artifact.exits),
        "dropped": list(added.dropped),
        "rows": added.rows,
        "agreement": added.agreements.to_dict(),
    }


def _shown(added: AddedExits) -> str:
    from itrex_sweet.evaluation.tables import percent, plain_table

    agreements = added.agreements
    rows = [
        [str(exit_), percent(share), "dropped" if exit_ in added.dropped else ""]
        for exit_, share in zip(agreements.exits, agreements.shares, strict=True)
    ]
    directory = added.artifact.directory
    return "\n".join(
        [
            plain_table(["exit", "agreement", ""], rows),
            "",
            f"Agreement with full depth on {agreements.rows} texts; its most frequent label agrees with "
            f"{percent(agreements.majority)}. Trained on {added.rows} other texts.",
            f"{directory}: calibrate it on texts that are not among these, itrex-sweet calibrate {directory} --data "
            "OTHER --max-agreement-drop 0.01",
        ]
    )
