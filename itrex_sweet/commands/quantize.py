"""Quantize an artifact to INT8 with Neural Compressor and compare every exit with the float model.

A random part of the calibration rows is used to observe activation ranges, the rest to compare with the float model
and, if they have labels, to fit temperatures. Use rows that are used neither for training nor for reporting.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from itrex_sweet.commands import options
from itrex_sweet.defaults import (
    AUTO,
    DEFAULT_CHANGED,
    DEFAULT_MOVED,
    DEFAULT_OBSERVED_ROWS,
    DEFAULT_SCORE_DROP,
    DEFAULT_SEED,
    EMBEDDINGS,
    RECIPES,
)

if TYPE_CHECKING:
    from itrex_sweet.artifact import Artifact

SUMMARY = "quantize an artifact to INT8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet quantize`."""
    parser.add_argument("directory", metavar="DIR", help="float32 artifact, or its name on the Hub")
    parser.add_argument(
        "--calibration",
        required=True,
        metavar="FILE",
        help="texts, optionally with labels: .csv, .tsv, .jsonl (.gz), .parquet, .txt, or a datasets name",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the INT8 artifact")
    options.add_named_dataset(parser)
    options.add_columns(parser)
    parser.add_argument(
        "--recipe",
        choices=(AUTO, *RECIPES),
        default=AUTO,
        help="static: fixed activation scales; smooth: SmoothQuant, then static; dynamic: a scale per row; "
        "auto: the fastest of these within the limits (default: %(default)s)",
    )
    parser.add_argument(
        "--embeddings",
        choices=EMBEDDINGS,
        default=EMBEDDINGS[0],
        help="precision of the word embeddings: int8, with a scale per token, or float32 (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        type=options.positive,
        default=DEFAULT_OBSERVED_ROWS,
        metavar="N",
        help="number of rows to observe (default: %(default)s)",
    )
    parser.add_argument("--max-length", type=options.positive, metavar="N", help="maximum number of tokens per text")
    parser.add_argument(
        "--seed",
        type=options.count,
        default=DEFAULT_SEED,
        help="seed of the random choice of rows (default: %(default)s)",
    )
    options.add_threads(parser)
    group = parser.add_argument_group("limits of auto")
    group.add_argument(
        "--max-drop",
        type=options.share,
        default=DEFAULT_SCORE_DROP,
        metavar="SHARE",
        help="maximum loss of the score at any exit; 0.01 is one point (default: %(default)g)",
    )
    group.add_argument(
        "--max-moved",
        type=options.share,
        default=DEFAULT_MOVED,
        metavar="SHARE",
        help="maximum share of rows that exit at another exit (default: %(default)g)",
    )
    group.add_argument(
        "--max-changed",
        type=options.share,
        default=DEFAULT_CHANGED,
        metavar="SHARE",
        help="share of rows whose answer at the last exit changes, above which slower recipes are tried; the one that "
        "changes the fewest is taken (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Quantizes an artifact, writes the result and prints the comparison."""
    from itrex_sweet.hub import fetch
    from itrex_sweet.quantization import SweetQuantizer

    quantizer = SweetQuantizer.from_pretrained(fetch(args.directory), threads=args.threads)
    before = _size(quantizer.model.artifact)
    artifact = quantizer.quantize(
        args.calibration,
        args.output,
        args.recipe,
        embeddings=args.embeddings,
        rows=args.rows,
        max_drop=args.max_drop,
        max_moved=args.max_moved,
        max_changed=args.max_changed,
        seed=args.seed,
        max_length=args.max_length,
        text_column=args.text_column,
        pair_column=args.pair_column,
        label_column=args.label_column,
        label_meanings=args.label_names,
        split=args.split,
        dataset_config=args.dataset_config,
    )
    if args.json:
        print(json.dumps(dict(artifact.quantization), indent=2, ensure_ascii=False))
    else:
        print(_shown(artifact, before))
    return 0


def _shown(artifact: Artifact, bytes_before: int) -> str:
    from itrex_sweet.evaluation.model_card import quantization_cells
    from itrex_sweet.evaluation.tables import plain_table

    facts, rows = artifact.quantization, artifact.quantization["calibration"]
    kept = ", ".join(facts["float_layers"]) or "none"
    return "\n".join(
        [
            f"{artifact.directory}: recipe {facts['recipe']}, {facts['integer_layers']} linear layers in INT8; in "
            f"float: {kept}; word embeddings in {artifact.embeddings_precision}",
            "",
            plain_table(*quantization_cells(facts)),
            "",
            f"{facts['rows_at_another_exit']:.1%} of {rows['rows_judged']} rows exit at another exit, "
            f"{facts['changed_answers']:.1%} have another answer at the last exit; thresholds "
            f"{', '.join(f'{value:.3f}' for value in artifact.policy.thresholds) or 'none'}",
            f"{bytes_before / 1e6:.1f} MB → {_size(artifact) / 1e6:.1f} MB",
        ]
    )


def _size(artifact: Artifact) -> int:
    """Returns the size of the weights in bytes."""
    return sum(artifact.weight_files().values())
