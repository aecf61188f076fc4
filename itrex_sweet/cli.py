"""`itrex-sweet VERB ...`: hands over to one file per verb in `itrex_sweet.commands`."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from itrex_sweet.errors import SweetError
from itrex_sweet.version import __version__

VERBS = ("train", "predict", "evaluate", "bench", "quantize", "calibrate", "drift", "export", "info", "demo")

SUCCESS, FAILURE, USAGE_ERROR = 0, 1, 2
_INTERRUPTED, _BROKEN_PIPE = 130, 141  # 128 and the signal's number, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: without the program's name; that of the process if absent.

    Returns:
        exit status: 0 for success, 1 for a failure (one line on standard error names it), 2 for wrong usage.
    """
    try:
        status = _run(argv)
        sys.stdout.flush()  # here, where a closed pipe can still be told from a failure
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return _BROKEN_PIPE


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parse(argv)
        with _logging_to_stderr():
            try:
                return args.run(args)
            except SweetError as error:
                if args.debug:
                    traceback.print_exc()
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
                return FAILURE
    except SystemExit as stop:  # argparse has printed help, or what is wrong with the arguments
        return stop.code if isinstance(stop.code, int) else SUCCESS


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="itrex-sweet",
        description="Early-exit text classification on the CPU: train a model, run it, measure it.",
        epilog="itrex-sweet VERB --help says more. Results go to standard output, logs to standard error.",
        parents=[debug],
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"itrex-sweet {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        # These files import no torch before they are run, so that help comes at once.
        command = importlib.import_module(f"itrex_sweet.commands.{verb}")
        of_verb = verbs.add_parser(
            verb,
            help=command.SUMMARY,
            description=command.__doc__,
            epilog=getattr(command, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[debug],
            allow_abbrev=False,
        )
        command.add_arguments(of_verb)
        of_verb.set_defaults(run=command.run, parser=of_verb, takes_more=getattr(command, "TAKES_MORE", False))
    args, more = parser.parse_known_args(argv)
    if more and not args.takes_more:
        args.parser.error(f"unknown arguments: {' '.join(more)}")
    args.more = more
    args.debug = getattr(args, "debug", False)
    return args


class _Lines(logging.Formatter):
    """`warning: ...`, and plain text for what merely informs."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {message}"


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Our own log on standard error while a command runs; other loggers are left alone."""
    ours, handler = logging.getLogger("itrex_sweet"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(message)s"))
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def _forget_stdout() -> None:
    """Nobody reads any more (`| head`): keeps the interpreter from complaining when it flushes at its end."""
    with suppress(OSError, ValueError):  # standard output that is no file is not flushed to one either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
