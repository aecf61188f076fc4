"""Classify texts and write one JSON object per text to standard output, in order.

An object contains `label`, `score`, `exit_layer` and `stopped_by`, and with --top-k `labels`. For a multi-label model,
`labels` lists the labels that apply, in place of `label` and `score`; for a regression model there is only `score`. A
text that cannot be classified gets an `error`; the exit status is then 1, and the other texts are still classified. A
text from a pipe is classified when it arrives; texts of a file, and texts that arrive together, are classified in
batches.

With --output, files and folders of files are answered into a folder: FOLDER/answers has one file per part of an input
file, whose objects have the number of the row in `row`, and FOLDER/bad_rows has file, row, line and reason of each row
without an answer. A run that ended early is continued by the same command; finished parts are not computed again. The
files are equal for any number of workers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from itrex_sweet.commands import options, predict_folder
from itrex_sweet.data import (
    FORMATS,
    STDIN,
    TextRow,
    batches,
    is_readable,
    read_text_rows,
    standard_input,
    waits_for_texts,
)
from itrex_sweet.data.json_lines import json_line
from itrex_sweet.defaults import OVERLONG, TRUNCATE
from itrex_sweet.errors import InputError, SweetError

SUMMARY = "classify texts from files or standard input"

_BATCHES_PER_CHUNK = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet predict`."""
    parser.add_argument("directory", metavar="DIR", help="an artifact, or its name on the Hub")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="texts; standard input if absent, or for -; with --output also folders",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of what is read (default: by suffix, .csv .tsv .jsonl .json, also .gz, or .parquet; else one text per "
        "line)",
    )
    options.add_columns(parser, labels=False)
    options.add_running(parser)
    options.add_stopping(parser)
    parser.add_argument("--max-length", type=options.positive, metavar="N", help="maximum number of tokens per text")
    parser.add_argument(
        "--overlong",
        choices=OVERLONG,
        default=TRUNCATE,
        help="what to do with longer texts: cut them with a warning, or give an error (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--top-k",
        type=options.positive_or_all,
        metavar="K",
        help="give the K most probable labels with their scores as well, or all",
    )
    output.add_argument(
        "--probabilities", action="store_const", const="all", dest="top_k", help="of all labels: --top-k all"
    )
    output.add_argument("--echo", action="store_true", help="repeat each text, and its column id, beside its answer")
    predict_folder.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Classifies every text; returns 1 if some failed, otherwise 0."""
    predict_folder.refuse_wrong_combinations(args)
    if args.output is not None:
        return predict_folder.run(args)
    sources = args.files or ["-"]
    for name in sources:
        if name != "-" and not is_readable(Path(name)):
            raise InputError(f"{name}: {'a folder, not a file' if Path(name).is_dir() else 'no such file'}.")

    from itrex_sweet.classifier import load
    from itrex_sweet.cluster.answering import answer_rows
    from itrex_sweet.cluster.parts import echoed

    classifier = load(
        args.directory,
        backend=args.backend,
        dtype=args.dtype,
        threshold=args.threshold,
        batch_size=args.batch_size,
        threads=args.threads,
    )
    size = args.batch_size if args.deadline_ms else _BATCHES_PER_CHUNK * args.batch_size
    settings = dict(quality=args.quality, max_exit=args.max_exit, deadline_ms=args.deadline_ms)
    settings |= dict(max_length=args.max_length, overlong=args.overlong)
    if args.top_k is not None:
        settings["top_k"] = args.top_k
    total = failed = 0
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    live = any(waits_for_texts(sys.stdin) if name == "-" else not Path(name).is_file() for name in sources)
    for batch in batches(_rows(args, sources), size, live):
        answers = answer_rows(classifier, [row.text for row in batch], [row.problem for row in batch], settings)
        lines = []
        for row, answer in zip(batch, answers, strict=True):
            if "error" in answer and row.problem is None:
                answer = {"error": f"{row.place}: {answer['error']}"}
            failed += "error" in answer
            lines.append(json_line({**echoed(row), **answer} if args.echo else answer))
        total += len(batch)
        _print(lines)
    if failed:
        print(f"{failed} of {total} texts got no answer; their lines say why.", file=sys.stderr)
    return 1 if failed else 0


def _print(lines: list[str]) -> None:
    """Prints lines at once.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        SweetError: standard output cannot be written, for instance a file on a full disk.
    """
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SweetError(f"cannot write to standard output ({error}).") from error


def _rows(args: argparse.Namespace, sources: list[str]) -> Iterator[TextRow]:
    """Yields the texts of all sources; a source that ends with an error counts as one more invalid row."""
    for name in sources:
        try:
            source, shown = (standard_input(), STDIN) if name == "-" else (name, None)
            yield from read_text_rows(source, args.format, args.text_column, args.pair_column, name=shown)
        except InputError as error:
            yield TextRow(name, None, str(error), {})
