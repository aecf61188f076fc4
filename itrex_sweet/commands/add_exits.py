"""Add exits to a plain fine-tuned classifier, with unlabelled texts.

The model is frozen, and every byte of its own weights stays. Each exit learns the probabilities that the model gives at
full depth; labels in FILE are ignored. Exits that agree with the full model no better than its most frequent answer are
dropped, and named. Calibrate afterwards, on other texts: itrex-sweet calibrate DIR --max-agreement-drop 0.01.
itrex-sweet accelerate does it all."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options

if TYPE_CHECKING:
    from itrex_sweet.acceleration import AddedExits

SUMMARY = "exits for a model that is fine-tuned already, without labels"
EPILOG = """\
exit status: 0 done, 1 failed, 2 wrong usage, 3 no exit learned anything

example:
  itrex-sweet add-exits my-deployed-classifier --data traffic.jsonl --output my-classifier
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet add-exits`."""
    parser.add_argument("model", metavar="MODEL", help="a fine-tuned Hugging Face classifier, a folder or on the hub")
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="texts: .txt, .csv, .tsv, .jsonl (.gz), or a datasets name"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the artifact (default: MODEL's name and -exits)"
    )
    add_traffic(parser)
    add_training(parser, "in the proportion 1 2 4 6 of 6 layers")
    options.add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """Options of the texts: how many are read, and the columns they stand in."""
    options.add_named_dataset(parser)
    parser.add_argument("--limit", type=options.positive, metavar="N", help="read only the first N texts")
    options.add_columns(parser, labels=False)


def add_training(parser: argparse.ArgumentParser, default_exits: str) -> None:
    """Options of the training of exits."""
    group = parser.add_argument_group("training of the exits")
    group.add_argument(
        "--exits",
        type=options.whole_numbers,
        nargs="+",
        metavar="LAYERS",
        help=f"counts of layers, the last the full depth (default: {default_exits})",
    )
    group.add_argument(
        "--epochs", type=options.positive_number, default=3.0, metavar="N", help="passes over the texts (default: 3)"
    )
    group.add_argument(
        "--learning-rate", type=options.positive_number, default=5e-5, metavar="RATE", help="(default: 5e-5)"
    )
    group.add_argument("--batch-size", type=options.positive, default=32, metavar="N", help="(default: 32)")
    group.add_argument(
        "--max-length",
        type=options.positive,
        metavar="N",
        help="tokens per text to learn from; longer ones are cut (default: as the tokenizer and the model allow)",
    )
    group.add_argument("--seed", type=options.count, default=42, help="(default: 42)")


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """Values of the options of `add_traffic` and `add_training`, as arguments of the Python functions."""
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
    """Trains, writes and prints."""
    from itrex_sweet.acceleration import add_exits
    from itrex_sweet.runtime.torch_threads import computing_with

    output = args.output or Path(f"{Path(args.model).name}-exits")
    # The Trainer prints its logs on standard output, which is for results.
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
            f"Agreement with full depth on {agreements.rows} texts; the most frequent answer alone has "
            f"{percent(agreements.majority)}. Learned from {added.rows} others.",
            f"{directory}: calibrate it on texts that are not among these, itrex-sweet calibrate {directory} --data "
            "OTHER --max-agreement-drop 0.01",
        ]
    )
