"""Train, save, load and measure a small early-exit model on reviews that the package writes itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from itrex_sweet.commands import options

SUMMARY = "the whole path on real pretrained weights, in a few minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet demo`."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo_output"),
        metavar="DIR",
        help="what it makes (default: demo_output)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer texts and one epoch: to see it run, not to judge it"
    )
    options.add_threads(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the demo."""
    from itrex_sweet.demo.run import run_demo
    from itrex_sweet.runtime.torch_threads import computing_with

    with computing_with(args.threads):
        return run_demo(args.output, quick=args.quick) or 0
