"""Compare live traffic with the rows that an artifact was calibrated on.

Reads what `itrex-sweet predict` wrote, one JSON object per text, and says whether exits, labels or probabilities have
moved: then what calibration promised need not hold any more. The exit status is 0 for stable, 3 for anything else."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from itrex_sweet.errors import InputError

SUMMARY = "whether live traffic still looks like the calibration rows"

MOVED = 3  # exit status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet drift`."""
    parser.add_argument("directory", metavar="DIR", help="a calibrated artifact, or its name on the hub")
    parser.add_argument(
        "predictions", nargs="?", default="-", metavar="FILE", help="of predict (default: standard input)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compares and prints; 3 where something moved."""
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.calibration.drift import drift
    from itrex_sweet.hub import fetch

    found = drift(open_artifact(fetch(args.directory), weights=False), _predictions(args.predictions))
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print(
            f"{found.verdict}: {found.rows} answers; stability index of exits {found.exits:.3f}, labels "
            f"{found.labels:.3f}, probabilities {found.scores:.3f}; Kolmogorov–Smirnov {found.ks:.3f} "
            f"(p {found.ks_p_value:.2g})"
        )
        if found.why:
            advice = " Calibrate on rows of today: itrex-sweet calibrate." if found.verdict == "recalibrate" else ""
            print(f"{found.why}.{advice}")
    return 0 if found.verdict == "stable" else MOVED


def _predictions(source: str) -> Iterator[dict[str, Any]]:
    try:
        with sys.stdin if source == "-" else open(source, encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _row(line, number, source)
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error}).") from error


def _row(line: str, number: int, source: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise InputError(f"line {number} of {source} is no JSON object, as itrex-sweet predict writes them.", (number,))
    return row
