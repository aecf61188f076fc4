"""Classify texts: one JSON object per text on standard output, in order, as answers come.

Each holds `label`, `score`, `exit_layer` and `stopped_by`, or `error` where a text could not be answered; the others
are answered all the same, and the exit status is then 1."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from itrex_sweet.commands import options
from itrex_sweet.data import FORMATS, Text, read_texts, standard_input
from itrex_sweet.errors import InputError

SUMMARY = "classify texts from files or standard input"

_BATCHES_PER_CHUNK = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `itrex-sweet predict`."""
    parser.add_argument("directory", metavar="DIR", help="an artifact, or its name on the hub")
    parser.add_argument("files", nargs="*", metavar="FILE", help="texts; standard input if absent, or for -")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="of what is read (default: by suffix, .csv .tsv .jsonl, also .gz; else one text per line)",
    )
    options.add_columns(parser, labels=False)
    options.add_running(parser)
    options.add_stopping(parser)
    parser.add_argument("--max-length", type=options.positive, metavar="N", help="tokens per text at most")
    parser.add_argument(
        "--overlong",
        choices=("truncate", "refuse"),
        default="truncate",
        help="what to do with longer texts: cut them with a warning, or give an error (default: truncate)",
    )
    parser.add_argument("--echo", action="store_true", help="repeat each text beside its answer")


def run(args: argparse.Namespace) -> int:
    """Answers every text; 1 if some could not be."""
    sources = args.files or ["-"]
    for name in sources:
        if name != "-" and not Path(name).is_file():
            raise InputError(f"{name}: no such file.")

    from itrex_sweet.modeling import SweetModelForSequenceClassification

    model = SweetModelForSequenceClassification.from_pretrained(
        args.directory, backend=args.backend, dtype=args.dtype, threshold=args.threshold, batch_size=args.batch_size
    )
    # Someone who types wants each answer at once; anything else is faster in batches.
    typed = "-" in sources and sys.stdin.isatty()
    size = 1 if typed else args.batch_size if args.deadline_ms else _BATCHES_PER_CHUNK * args.batch_size
    stopping = dict(quality=args.quality, max_exit=args.max_exit, deadline_ms=args.deadline_ms)
    total = failed = 0
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    for chunk in _chunks(_texts(args, sources), size):
        good = [text for text, problem in chunk if problem is None]
        answers = iter(
            model.predict(good, max_length=args.max_length, overlong=args.overlong, errors="mark", **stopping)
            if good
            else []
        )
        total += len(chunk)
        for text, problem in chunk:
            answer = _answer(next(answers)) if problem is None else {"error": problem}
            failed += "error" in answer
            echoed = {"text": text} if args.echo else {}
            print(json.dumps({**echoed, **answer}, ensure_ascii=False))
        sys.stdout.flush()
    if failed:
        print(f"{failed} of {total} texts got no answer; their lines say why.", file=sys.stderr)
    return 1 if failed else 0


def _texts(args: argparse.Namespace, sources: list[str]) -> Iterator[tuple[Text | None, str | None]]:
    """Texts of all sources; a source that breaks off counts as one more bad row."""
    for name in sources:
        source = standard_input() if name == "-" else name
        try:
            yield from read_texts(source, args.format, args.text_column, args.pair_column)
        except InputError as error:
            yield None, str(error)


def _answer(prediction: dict[str, Any]) -> dict[str, Any]:
    return {"error": prediction["error"]} if "error" in prediction else prediction


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk
