"""Make a plain fine-tuned classifier faster, with a file of unlabelled traffic and nothing else.

Adds exits (the model's own weights stay as they are), quantizes to INT8 where Neural Compressor is installed, removes
exits that do not pay, certifies a policy that gives almost every text the label of full depth, and measures it on texts
that had no part in all that. The texts are dealt into four parts that share none. A run that was ended goes on where it
was; steps whose inputs have changed are done again."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from itrex_sweet.commands import options
from itrex_sweet.commands.add_exits import add_traffic, add_training, training_options

if TYPE_CHECKING:
    from itrex_sweet.acceleration import Acceleration

SUMMARY = "a fine-tuned model and unlabelled texts in, a faster model out"
DOES_NOT_PAY = 3
EPILOG = """\
exit status: 0 done, 1 failed (too few texts to certify, for instance), 2 wrong usage, 3 exits do not pay: DIR holds
the model if it was calibrated, and the last line says how much it gains

example:
  itrex-sweet accelerate my-deployed-classifier --traffic traffic.jsonl --output my-fast-classifier
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet accelerate`."""
    parser.add_argument("model", metavar="MODEL", help="a fine-tuned Hugging Face classifier, a folder or on the hub")
    parser.add_argument(
        "--traffic",
        required=True,
        metavar="FILE",
        help="texts as they come: .txt, .csv, .tsv, .jsonl (.gz), or a datasets name; labels are ignored",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the artifact")
    add_traffic(parser)
    group = parser.add_argument_group("promise")
    group.add_argument(
        "--max-agreement-drop",
        type=options.share,
        default=0.01,
        metavar="SHARE",
        help="of texts that may get another label than at full depth (default: 0.01)",
    )
    group.add_argument("--confidence", type=options.share, default=0.95, metavar="SHARE", help="(default: 0.95)")
    group.add_argument(
        "--least-speedup",
        type=float,
        default=1.2,
        metavar="TIMES",
        help="of leaving early over full depth, below which it does not pay (default: 1.2)",
    )
    add_training(parser, "every layer, or every second one of more than 12; those that do not pay are removed")
    parser.add_argument("--no-int8", action="store_true", help="stay in float32")
    options.add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Runs all steps, and prints what came of them."""
    from itrex_sweet.acceleration import accelerate
    from itrex_sweet.runtime.torch_threads import computing_with

    # The Trainer prints its logs on standard output, which is for results.
    with computing_with(args.threads), contextlib.redirect_stdout(sys.stderr):
        made = accelerate(
            args.model,
            args.traffic,
            args.output,
            max_agreement_drop=args.max_agreement_drop,
            confidence=args.confidence,
            least_speedup=args.least_speedup,
            quantize=not args.no_int8,
            threads=args.threads,
            **training_options(args),
        )
    if args.json:
        facts = {"directory": str(made.artifact.directory), "pays": made.pays, **made.measured.to_dict()}
        print(json.dumps(facts, indent=2))
    else:
        print(shown(made))
    return 0 if made.pays else DOES_NOT_PAY


def shown(made: Acceleration) -> str:
    """The outcome in five lines."""
    measured, budget = made.measured, made.budget
    pays = (
        f"{measured.over_full_depth:.1f} times faster than the same engine at full depth, "
        f"{measured.over_checkpoint:.1f} times faster than transformers runs the checkpoint in float32"
    )
    if not made.pays:
        pays = (
            f"Leaving early does not pay: {measured.over_full_depth:.2f} times the speed of full depth, and "
            f"{made.least_speedup:g} were asked for (--least-speedup); {measured.over_checkpoint:.1f} times that of "
            "the checkpoint by transformers in float32"
        )
    kept = {True: "held", False: "not held on these texts", None: "not judged"}[measured.promise_kept]
    return "\n".join(
        [
            f"{pays}: {measured.milliseconds:.3g} ms per text, {measured.milliseconds_full_depth:.3g} and "
            f"{measured.milliseconds_checkpoint:.3g} ms; {measured.mean_layers:.2f} of {measured.exits[-1]} layers.",
            f"Certified with {100 * budget.confidence:g} % confidence: at least {100 * (1 - budget.epsilon):g} % of "
            "the texts get the label of full depth.",
            f"Held out, {measured.rows} texts: {100 * measured.agreement_with_full_depth:.2f} % get the label of full "
            f"depth ({kept}), {100 * measured.agreement:.2f} % that of the checkpoint (at least "
            f"{100 * measured.agreement_at_least:.2f} % with 95 % confidence).",
            f"Exits {', '.join(map(str, measured.exits))}, {measured.precision}.",
            f"{made.artifact.directory}",
        ]
    )
