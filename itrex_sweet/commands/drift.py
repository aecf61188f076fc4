"""Compare live traffic with the rows that an artifact was calibrated on.

Reads what `itrex-sweet predict` wrote, one JSON object per text, and says whether exits, labels or probabilities have
moved: then what calibration promised need not hold any more. The exit status is 0 for stable, 3 for anything else."""

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
    from itrex_sweet.calibration.drift import Drift

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
    from itrex_sweet.hub import fetch

    found = _compared(open_artifact(fetch(args.directory), weights=False), args.predictions)
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


def _compared(artifact: Artifact, source: str) -> Drift:
    """Compares the answers in a file; one that is none is named by its line.

    Raises:
        InputError: the file cannot be read, or does not hold answers of this model.
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
    """Answers as `itrex-sweet predict` writes them; notes the place of each."""
    lines = stream_lines(standard_input(), STDIN, "jsonl") if source == "-" else file_lines(Path(source), "jsonl")
    for line in lines:
        if line.problem is not None:
            raise InputError(f"{line.place}: {line.problem}, as itrex-sweet predict writes one per line")
        places.append(line.place)
        yield line.record
