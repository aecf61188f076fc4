"""Compare live traffic with the rows that an artifact was calibrated on.

Reads the output of `itrex-sweet predict`, one JSON object per text, and reports whether the distributions of exits,
labels and scores have changed. If so, the guarantee of the calibration may not hold any more. The exit status
is 0 if they are stable, otherwise 3.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.data import STDIN, file_lines, standard_input, stream_lines
from itrex_sweet.errors import InputError

if TYPE_CHECKING:
    from itrex_sweet.artifact import Artifact
    from itrex_sweet.drift import Drift

SUMMARY = "compare traffic with the calibration rows"

DRIFTED = 3  # exit status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet drift`."""
    parser.add_argument("directory", metavar="DIR", help="a calibrated artifact, or its name on the Hub")
    parser.add_argument(
        "predictions", nargs="?", default="-", metavar="FILE", help="output of predict (default: standard input)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compares predictions with the calibration and prints the result; returns 3 if they differ."""
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.hub import fetch

    found = _compared(open_artifact(fetch(args.directory), weights=False), args.predictions)
    if args.json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print(
            f"{found.verdict}: {found.rows} predictions; stability index of exits {found.exits:.3f}, labels "
            f"{found.labels:.3f}, scores {found.scores:.3f}; Kolmogorov–Smirnov {found.ks:.3f} "
            f"(p {found.ks_p_value:.2g})"
        )
        if found.why:
            advice = " Calibrate on recent rows: itrex-sweet calibrate." if found.verdict == "recalibrate" else ""
            print(f"{found.why}.{advice}")
    return 0 if found.verdict == "stable" else DRIFTED


def _compared(artifact: Artifact, source: str) -> Drift:
    """Compares the predictions in a file with the calibration; errors name the line.

    Raises:
        InputError: the file cannot be read, or does not contain predictions of this model.
        ArtifactError: the artifact was not calibrated.
    """
    from itrex_sweet.calibration.drift import drift

    places: list[str] = []
    try:
        return drift(artifact, _answers(source, places))
    except InputError as error:
        if not error.rows or error.rows[0] >= len(places):
            raise
        raise InputError(f"{places[error.rows[0]]}: {error}", error.rows) from error


def _answers(source: str, places: list[str]) -> Iterator[Mapping[str, Any]]:
    """Yields the predictions that `itrex-sweet predict` wrote; appends the place of each to `places`."""
    lines = stream_lines(standard_input(), STDIN, "jsonl") if source == "-" else file_lines(Path(source), "jsonl")
    for line in lines:
        if line.problem is not None:
            raise InputError(f"{line.place}: {line.problem}; itrex-sweet predict writes one per line")
        places.append(line.place)
        yield line.record
