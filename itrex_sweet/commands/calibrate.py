"""Fit temperatures and thresholds on held-out rows: the fastest policy, in measured time, that meets a guarantee.

The guarantee holds with the given confidence over the draw of the calibration rows: early exit loses at most the given
share against the same model at full depth, or with --against, against another model. Use rows that are used neither
for training nor for reporting. Without labels, bound the agreement with full depth instead of the accuracy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from itrex_sweet.commands import options
from itrex_sweet.defaults import (
    DEFAULT_BACKEND,
    DEFAULT_BATCH_SIZE,
    DEFAULT_CONFIDENCE,
    DEFAULT_SEED,
    MEANS,
    METRIC_NAMES,
    MILLISECONDS,
    UNITS,
)
from itrex_sweet.policy import CRITERIA

if TYPE_CHECKING:
    from itrex_sweet.calibration.calibrate import Calibration
    from itrex_sweet.calibration.result import Candidate

SUMMARY = "fit temperatures and thresholds to a guarantee or a budget"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet calibrate`."""
    parser.add_argument("directory", metavar="DIR", help="an artifact, or its name on the Hub")
    parser.add_argument("--data", required=True, metavar="FILE", help="held-out texts: a file or a datasets name")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: DIR itself)")
    group = parser.add_argument_group("budget")
    group.add_argument(
        "--max-accuracy-drop",
        type=options.open_share,
        metavar="SHARE",
        help="maximum loss of accuracy; 0.01 is one point; needs labels",
    )
    group.add_argument(
        "--max-agreement-drop",
        type=options.open_share,
        metavar="SHARE",
        help="maximum share of rows that get another label, or set of labels, or value (see --tolerance)",
    )
    group.add_argument(
        "--max-metric-drop", type=options.open_share, metavar="SHARE", help="maximum loss of --metric; approximate"
    )
    group.add_argument(
        "--metric",
        choices=tuple(name for name in METRIC_NAMES if name not in MEANS),
        help="metric of --max-metric-drop",
    )
    options.add_tolerance(group)
    group.add_argument(
        "--confidence",
        type=options.open_share,
        default=DEFAULT_CONFIDENCE,
        metavar="SHARE",
        help="(default: %(default)g)",
    )
    options.add_against(group)
    group.add_argument(
        "--max-latency-ms",
        type=options.positive_number,
        metavar="MS",
        help="maximum mean time per text on this machine",
    )
    group.add_argument(
        "--max-layers", type=options.positive_number, metavar="N", help="maximum mean number of layers per text"
    )
    costs = parser.add_argument_group("costs")
    costs.add_argument(
        "--unit",
        choices=UNITS,
        default=MILLISECONDS,
        help="milliseconds measured on this machine, or layers (default: %(default)s)",
    )
    costs.add_argument(
        "--batch-size",
        type=options.positive,
        metavar="N",
        help=f"texts per batch in deployment (default: {DEFAULT_BATCH_SIZE}; with --max-latency-ms: 1)",
    )
    options.add_named_dataset(parser)
    options.add_columns(parser)
    parser.add_argument("--criterion", choices=CRITERIA, help="confidence criterion (default: the stored one)")
    parser.add_argument(
        "--one-threshold", action="store_true", help="use one threshold for all exits instead of one per exit"
    )
    parser.add_argument(
        "--backend",
        default=DEFAULT_BACKEND,
        metavar="NAME",
        help="backend of the deployment (default: the fastest available)",
    )
    options.add_threads(parser)
    parser.add_argument("--max-length", type=options.positive, metavar="N", help="maximum number of tokens per text")
    parser.add_argument(
        "--seed",
        type=options.count,
        default=DEFAULT_SEED,
        help="seed of the random split of rows (default: %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="calibrate although rows were used for training or reporting"
    )
    parser.add_argument(
        "--prune-exits", action="store_true", help="remove the exits that the policy does not use, with their weights"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the calibrated curve to a PNG file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Calibrates an artifact, writes the policy and prints it."""
    from itrex_sweet.artifact.staging import require_writable
    from itrex_sweet.calibration.budget import Budget
    from itrex_sweet.calibration.calibrate import calibrate
    from itrex_sweet.calibration.pruning import remove_unused_exits
    from itrex_sweet.evaluation.plot import plot_calibration, require_plot
    from itrex_sweet.hub import fetch
    from itrex_sweet.modeling import SweetModelForSequenceClassification

    budget = Budget(
        max_accuracy_drop=args.max_accuracy_drop,
        max_agreement_drop=args.max_agreement_drop,
        max_metric_drop=args.max_metric_drop,
        metric=args.metric,
        confidence=args.confidence,
        max_latency_ms=args.max_latency_ms,
        max_layers=args.max_layers,
        tolerance=args.tolerance,
    )
    model = SweetModelForSequenceClassification.from_pretrained(
        fetch(args.directory), backend=args.backend, threads=args.threads
    )
    require_writable(args.output or model.artifact.directory)
    if args.plot is not None:
        require_plot(args.plot)
    calibration = calibrate(
        model,
        args.data,
        budget,
        criterion=args.criterion,
        per_exit=not args.one_threshold,
        unit=args.unit,
        batch_size=args.batch_size,
        seed=args.seed,
        max_length=args.max_length,
        force=args.force,
        against=args.against,
        split=args.split,
        dataset_config=args.dataset_config,
        text_column=args.text_column,
        pair_column=args.pair_column,
        label_column=args.label_column,
        label_meanings=args.label_names,
    )
    written = calibration.write(model.artifact, args.output)
    if args.prune_exits and calibration.switched_off:
        written = remove_unused_exits(written)
    if args.plot is not None:
        plot_calibration(calibration.to_dict(), args.plot)
    if args.json:
        print(json.dumps(calibration.to_dict(), indent=2, ensure_ascii=False))
    else:
        print(f"{written.directory}\n\n{_shown(calibration)}")
    return 0


def _shown(calibration: Calibration) -> str:
    from itrex_sweet.evaluation.label_agreement import describe_lost
    from itrex_sweet.evaluation.tables import MISSING, figure, percent, plain_table
    from itrex_sweet.evaluation.tables import score as score_of
    from itrex_sweet.metrics import NUMBERS

    rows = []
    for index in calibration.representative_candidates():
        each = calibration.candidates[index]
        is_certified = calibration.certified is not None and index < calibration.certified
        rows.append(
            [
                "→" if index == calibration.chosen else "",
                " ".join("off" if value >= 1.0 else f"{value:.3f}" for value in each.policy.thresholds) or MISSING,
                figure(each.mean_layers),
                MISSING if each.milliseconds is None else f"{each.milliseconds:.3g}",
                figure(each.score, 4) if calibration.budget.metric in NUMBERS else percent(each.score, 2),
                str(each.counts.lost),
                str(each.counts.won),
                MISSING if each.p_value is None or index == 0 else f"{each.p_value:.2g}",
                "yes" if is_certified else "" if calibration.certified is None else "no",
            ]
        )
    facts, temperatures, budget = calibration.facts, calibration.temperatures, calibration.budget
    tolerance = calibration.policy.tolerance
    score = (
        "agreement" if budget.max_agreement_drop is not None else budget.target if budget.needs_labels else "accuracy"
    )
    headings = ["", "thresholds", "layers", "ms/row", score, "lost", "won", "p-value", "certified"]
    lines = [
        f"{facts['criterion']} on the {facts['backend']} backend in {facts['precision']}; {calibration.rows[0]} rows "
        f"chose candidates, {calibration.rows[1]} others tested them.",
        "temperatures " + " ".join(f"{value:.3f}" for value in temperatures["after"]),
    ]
    if calibration.costs is not None:
        costs = calibration.costs.facts
        lines.append(
            f"milliseconds per row in batches of {facts['batch_size']}, on {costs['threads']} threads of "
            f"{costs['processor']}, measured {costs['created']}"
        )
    if "calibration_error_after" in temperatures:
        before, after = (temperatures[f"calibration_error_{when}"] for when in ("before", "after"))
        pairs = ", ".join(f"{100 * old:.1f} → {100 * new:.1f} %" for old, new in zip(before, after, strict=True))
        lines.append(f"calibration error per exit {pairs}")
    lines += ["", plain_table(headings, rows), "", _guarantee_sentence(calibration)]
    if tolerance is not None and budget.max_metric_drop is None:
        lines.append(f"Values that differ by at most {tolerance:g} count as equal.")
    for name, values in facts.get("metrics", {}).items():
        policy, full = (score_of(values[key], name) for key in ("policy", "full"))
        lines.append(f"{name} of the testing rows: {policy}, at full depth {full}")
    if off := calibration.switched_off:
        lines.append(f"Switched off, since they save less than they cost: exits {', '.join(map(str, off))}.")
    if lost := calibration.lost_labels:
        lines.append(f"Rows of some labels get another label far more often: {describe_lost(lost)}.")
    if calibration.chosen == 0:
        lines.append("No policy is faster than full depth.")
    if (static := calibration.static_alternative) is not None:
        lines.append(_static_alternative(calibration, *static))
    if calibration.rows_for_the_next:
        lines.append(f"About {calibration.rows_for_the_next} testing rows would probably certify the next policy too.")
    return "\n".join(lines)


def _static_alternative(calibration: Calibration, exit_: int, fixed: Candidate) -> str:
    selected, unit = calibration.candidates[calibration.chosen], "layers" if calibration.costs is None else "ms"
    return (
        f"A static model is as good here: with every row leaving at exit {exit_}, the score is {fixed.score:.4f} at "
        f"{fixed.cost:.3g} {unit} per row, and {selected.score:.4f} at {selected.cost:.3g} with this policy (no "
        f"guarantee covers the comparison). Run it with threshold=1, max_exit={exit_}, or train a model of that depth."
    )


def _guarantee_sentence(calibration: Calibration) -> str:
    budget, full, chosen = calibration.budget, calibration.candidates[0], calibration.candidates[calibration.chosen]
    cost = f"{chosen.mean_layers:.2f} of {full.mean_layers:g} layers"
    if chosen.milliseconds is not None:
        cost += f" and {chosen.milliseconds:.3g} of {full.milliseconds:.3g} ms"
    if budget.epsilon is None:
        return f"{cost} on average, the most accurate within the budget; no guarantee."
    against, lost = calibration.against, f"{budget.target} lost"
    if against is not None:
        agreement = budget.max_agreement_drop is not None
        lost = f"agreement with {against['name']} lost" if agreement else f"{lost} against {against['name']}"
    sentence = (
        f"{cost} on average; with {100 * budget.confidence:g} % confidence at most {100 * budget.epsilon:g} % of "
        f"{lost} ({calibration.bound})."
    )
    if against is not None and "score" in against:
        sentence += (
            f" {against['name']} has {100 * against['score']:.2f} %, this model at full depth {100 * full.score:.2f} % "
            "on the testing rows."
        )
    return sentence
