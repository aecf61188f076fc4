"""Train, quantize, calibrate and evaluate a small early-exit model on generated reviews."""

from __future__ import annotations

import argparse
from pathlib import Path

from itrex_sweet.commands import options

_OUTPUT = Path("demo_output")

SUMMARY = "run all steps on pretrained weights, in a few minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet demo`."""
    parser.add_argument(
        "--output",
        type=Path,
        default=_OUTPUT,
        metavar="DIR",
        help="output folder (default: %(default)s)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="use fewer texts and one epoch; results are not representative"
    )
    options.add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the demo."""
    from itrex_sweet.demo.run import run_demo
    from itrex_sweet.runtime.torch_threads import computing_with

    with computing_with(args.threads):
        return run_demo(args.output, quick=args.quick) or 0
