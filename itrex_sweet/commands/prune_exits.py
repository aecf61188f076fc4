"""Remove exits from an artifact: all except the given ones, or those that save no time on the given texts.

The remaining exits give the same predictions, and the artifact contains no tensors of the removed ones. An exit
saves time if the cost of the best policies without it is higher by at least --least-gain of full depth. Use texts
that the exits were not trained on; labels are ignored. Calibrate afterwards: a policy stays calibrated only if no text
exits at a removed exit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.defaults import (
    DEFAULT_BACKEND,
    DEFAULT_BATCH_SIZE,
    DEFAULT_LEAST_GAIN,
    DEFAULT_MAX_DROP,
    MILLISECONDS,
    UNITS,
)

if TYPE_CHECKING:
    from itrex_sweet.artifact import Artifact
    from itrex_sweet.calibration.pruning import ExitGains

SUMMARY = "remove exits from an artifact"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet prune-exits`."""
    parser.add_argument("directory", metavar="DIR", help="an artifact, or its name on the Hub")
    by = parser.add_mutually_exclusive_group(required=True)
    by.add_argument("--keep", type=options.layers, nargs="+", metavar="LAYERS", help="exits to keep, such as 1,4,6")
    by.add_argument("--data", metavar="FILE", help="texts to evaluate the exits on: a file or a datasets name")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write to (default: DIR itself)")
    options.add_named_dataset(parser)
    options.add_columns(parser, labels=False)
    group = parser.add_argument_group("evaluation, with --data")
    group.add_argument(
        "--max-drop",
        type=options.share,
        default=DEFAULT_MAX_DROP,
        metavar="SHARE",
        help="ignore policies that change a larger share of labels (default: %(default)g)",
    )
    group.add_argument(
        "--least-gain",
        type=options.share,
        default=DEFAULT_LEAST_GAIN,
        metavar="SHARE",
        help="share of full depth's cost that an exit has to save (default: %(default)g)",
    )
    group.add_argument("--unit", choices=UNITS, default=MILLISECONDS, help="(default: %(default)s)")
    group.add_argument(
        "--batch-size",
        type=options.positive,
        metavar="N",
        help=f"texts per batch in deployment (default: {DEFAULT_BATCH_SIZE})",
    )
    group.add_argument("--max-length", type=options.positive, metavar="N", help="maximum number of tokens per text")
    group.add_argument(
        "--backend",
        default=DEFAULT_BACKEND,
        metavar="NAME",
        help="backend of the deployment (default: the fastest available)",
    )
    options.add_tolerance(group)
    options.add_threads(group)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Evaluates exits, writes the artifact and prints the result."""
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.calibration.pruning import prune_exits
    from itrex_sweet.hub import fetch

    before = open_artifact(fetch(args.directory), weights=False)
    judging = {}
    if args.data is not None:
        judging = dict(
            max_drop=args.max_drop,
            least_gain=args.least_gain,
            unit=args.unit,
            batch_size=args.batch_size,
            max_length=args.max_length,
            tolerance=args.tolerance,
            text_column=args.text_column,
            pair_column=args.pair_column,
            split=args.split,
            dataset_config=args.dataset_config,
        )
    written, worth = prune_exits(
        args.directory,
        args.output,
        keep=None if args.keep is None else [exit_ for part in args.keep for exit_ in part],
        data=args.data,
        backend=args.backend,
        threads=args.threads,
        **judging,
    )
    if args.json:
        print(json.dumps(_facts(before, written, worth), indent=2))
    else:
        print(_shown(before, written, worth))
    return 0


def _facts(before: Artifact, written: Artifact, worth: ExitGains | None) -> dict[str, Any]:
    judged = {}
    if worth is not None:
        agreements = dict(zip(worth.exits, worth.agreements, strict=True))
        judged = {"rows": worth.rows, "agreement": agreements, "saves": worth.gains}
    return {
        "directory": str(written.directory),
        "exits": list(written.exits),
        "removed": [exit_ for exit_ in before.exits if exit_ not in written.exits],
        "bytes_before": sum(before.weight_files().values()),
        "bytes": sum(written.weight_files().values()),
        "calibrated": bool(written.calibration),
        **judged,
    }


def _shown(before: Artifact, written: Artifact, worth: ExitGains | None) -> str:
    facts = _facts(before, written, worth)
    lines = [] if worth is None else [worth.table(), ""]
    if not facts["removed"]:
        return "\n".join([*lines, f"Every exit has a benefit: {written.directory} is unchanged."])
    removed, kept = (", ".join(map(str, facts[name])) for name in ("removed", "exits"))
    lines.append(
        f"{written.directory}: exits {kept}; without {removed}. {facts['bytes_before'] / 1e6:.1f} MB → "
        f"{facts['bytes'] / 1e6:.1f} MB"
    )
    if before.calibration and not written.calibration:
        lines.append("Its policy used removed exits, so its guarantee does not hold any more: calibrate again.")
    return "\n".join(lines)
