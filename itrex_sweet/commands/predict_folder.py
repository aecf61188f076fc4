"""The part of `itrex-sweet predict` that answers files into a folder, in this process or on a Ray cluster."""

from __future__ import annotations

import argparse
import logging

from itrex_sweet.cluster.settings import DEFAULT_ROWS_PER_PART, JSON_LINES, OUTPUT_FORMATS, FolderSettings
from itrex_sweet.commands import options

logger = logging.getLogger(__name__)

_OF_FOLDERS = ("output_format", "rows_per_part", "restart", "ray")
_WORKERS = 1
_OF_RAY = ("address", "workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that need `--output`."""
    group = parser.add_argument_group("answers in a folder")
    group.add_argument("--output", metavar="FOLDER", help="write the answers into a folder; continues an earlier run")
    group.add_argument("--output-format", choices=OUTPUT_FORMATS, help=f"of the answers (default: {JSON_LINES})")
    group.add_argument(
        "--rows-per-part",
        type=options.positive,
        metavar="N",
        help=f"maximum number of rows of a file of answers (default: {DEFAULT_ROWS_PER_PART})",
    )
    group.add_argument(
        "--restart",
        action="store_true",
        default=None,
        help="delete the answers of an earlier run first",
    )
    group.add_argument(
        "--ray",
        action="store_true",
        default=None,
        help="answer on a Ray cluster; this process reads and writes files",
    )
    group.add_argument(
        "--address", metavar="ADDRESS", help="of the cluster, such as auto (default: start one on this machine)"
    )
    group.add_argument(
        "--workers",
        type=options.positive,
        metavar="N",
        help=f"processes on the cluster, with --threads each (default: {_WORKERS})",
    )


def refuse_wrong_combinations(args: argparse.Namespace) -> None:
    """Ends with a usage error for options that exclude one another."""
    for names, needed in ((_OF_FOLDERS, "output"), (_OF_RAY, "ray")):
        for name in names:
            if getattr(args, name) is not None and getattr(args, needed) is None:
                args.parser.error(f"--{name.replace('_', '-')} needs --{needed}")
    if args.output is None:
        return
    if args.deadline_ms is not None:
        args.parser.error("--deadline-ms and --output exclude one another: answers would depend on the clock")
    if not args.files or "-" in args.files:
        args.parser.error("--output needs files or folders: standard input cannot be read again to continue a run")


def run(args: argparse.Namespace) -> int:
    """Answers the files; returns 1 if rows or files have no answers, otherwise 0."""
    from itrex_sweet.cluster.folders import predict_folder

    prediction = dict(quality=args.quality, max_exit=args.max_exit, max_length=args.max_length, overlong=args.overlong)
    if args.top_k is not None:
        prediction["top_k"] = args.top_k
    settings = FolderSettings(
        format=args.format,
        text_column=args.text_column,
        pair_column=args.pair_column,
        rows_per_part=args.rows_per_part or DEFAULT_ROWS_PER_PART,
        output_format=args.output_format or JSON_LINES,
        echo=args.echo,
        loading=dict(backend=args.backend, dtype=args.dtype, threshold=args.threshold, batch_size=args.batch_size),
        prediction=prediction,
    )
    totals = predict_folder(
        args.directory,
        args.files,
        args.output,
        settings,
        threads=args.threads,
        ray_workers=(args.workers or _WORKERS) if args.ray else None,
        address=args.address,
        restart=bool(args.restart),
    )
    logger.info(
        "%d rows: %d answered, %d without an answer%s. %d rows were computed in this run.",
        totals.rows,
        totals.rows - totals.bad_rows,
        totals.bad_rows,
        f" (reasons: {args.output}/bad_rows)" if totals.bad_rows else "",
        totals.answered_now,
    )
    if totals.unfinished_files:
        logger.error("Not read to the end: %s.", ", ".join(totals.unfinished_files))
    return 1 if totals.bad_rows or totals.unfinished_files else 0
