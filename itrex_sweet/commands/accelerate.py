"""Accelerate a plain fine-tuned classifier, with unlabelled texts only.

Adds exits (the weights of the model do not change), quantizes to INT8 if Neural Compressor is installed, removes exits
that save no time, certifies the share of texts that get another label than at full depth (in a regression, a value that
differs by more than --tolerance), and evaluates the result on texts that no other step used. The texts are split into
four disjoint parts. An interrupted run resumes at the current step; steps whose inputs have changed are repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from itrex_sweet.commands import options
from itrex_sweet.commands.add_exits import add_traffic, add_training, training_options
from itrex_sweet.defaults import DEFAULT_AGREEMENT_DROP, DEFAULT_CONFIDENCE, MIN_SPEEDUP

if TYPE_CHECKING:
    from itrex_sweet.acceleration import Acceleration

SUMMARY = "make a fine-tuned model faster, with unlabelled texts"
NO_SPEEDUP = 3
EPILOG = """\
exit status: 0 done, 1 failed (too few texts to certify, for instance), 2 wrong usage, 3 no sufficient
speed-up: DIR contains the model if it was calibrated, and the last line reports the speed-up

example:
  itrex-sweet accelerate my-deployed-classifier --traffic traffic.jsonl --output my-fast-classifier
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet accelerate`."""
    parser.add_argument(
        "model", metavar="MODEL", help="fine-tuned Hugging Face classifier, a folder or a name on the Hub"
    )
    parser.add_argument(
        "--traffic",
        required=True,
        metavar="FILE",
        help="texts from production: .txt, .csv, .tsv, .jsonl (.gz), .parquet, or a datasets name; labels are ignored",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the artifact")
    add_traffic(parser)
    group = parser.add_argument_group("guarantee")
    group.add_argument(
        "--max-agreement-drop",
        type=options.open_share,
        default=DEFAULT_AGREEMENT_DROP,
        metavar="SHARE",
        help="maximum share of texts that get another label, set of labels, or value (see --tolerance) than at full "
        "depth (default: %(default)g)",
    )
    options.add_tolerance(group)
    group.add_argument(
        "--confidence",
        type=options.open_share,
        default=DEFAULT_CONFIDENCE,
        metavar="SHARE",
        help="(default: %(default)g)",
    )
    group.add_argument(
        "--least-speedup",
        type=options.non_negative_number,
        default=MIN_SPEEDUP,
        metavar="TIMES",
        help="minimum speed-up of early exit over full depth (default: %(default)g)",
    )
    add_training(parser, "every layer, or every second one of more than 12; exits without a benefit are removed")
    parser.add_argument("--no-int8", action="store_true", help="keep the model in float32")
    options.add_threads(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Runs all steps and prints the result."""
    from itrex_sweet.acceleration import accelerate
    from itrex_sweet.runtime.torch_threads import computing_with

    # The Trainer prints its logs to standard output, which is reserved for results.
    with computing_with(args.threads), contextlib.redirect_stdout(sys.stderr):
        made = accelerate(
            args.model,
            args.traffic,
            args.output,
            max_agreement_drop=args.max_agreement_drop,
            tolerance=args.tolerance,
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
    return 0 if made.pays else NO_SPEEDUP


def shown(made: Acceleration) -> str:
    """Returns the result as text."""
    from itrex_sweet.evaluation.label_agreement import describe_lost

    measured, budget = made.measured, made.budget
    pays = (
        f"{measured.over_full_depth:.1f} times faster than the same engine at full depth, "
        f"{measured.over_checkpoint:.1f} times faster than transformers runs the checkpoint in float32"
    )
    if not made.pays:
        pays = (
            f"Early exit does not pay: {measured.over_full_depth:.2f} times the speed of full depth, and "
            f"{made.least_speedup:g} are required (--least-speedup); {measured.over_checkpoint:.1f} times that of "
            "the checkpoint by transformers in float32"
        )
    same = "the label" if budget.tolerance is None else f"the value (± {budget.tolerance:g})"
    lost = measured.lost_labels
    warned = [f"Texts of some labels get another label far more often: {describe_lost(lost)}."] if lost else []
    kept = {True: "held", False: "not held on these texts", None: "not judged"}[measured.guarantee_holds]
    return "\n".join(
        [
            f"{pays}: {measured.milliseconds:.3g} ms per text, {measured.milliseconds_full_depth:.3g} and "
            f"{measured.milliseconds_checkpoint:.3g} ms; {measured.mean_layers:.2f} of {measured.exits[-1]} layers.",
            f"Certified with {100 * budget.confidence:g} % confidence: at least {100 * (1 - budget.epsilon):g} % of "
            f"the texts get {same} of full depth.",
            f"Held out, {measured.rows} texts: {100 * measured.agreement_with_full_depth:.2f} % get {same} of full "
            f"depth ({kept}), {100 * measured.agreement:.2f} % that of the checkpoint (at least "
            f"{100 * measured.agreement_at_least:.2f} % with 95 % confidence).",
            *warned,
            f"Exits {', '.join(map(str, measured.exits))}, {measured.precision}.",
            f"{made.artifact.directory}",
        ]
    )
