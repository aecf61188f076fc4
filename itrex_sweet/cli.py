"""`itrex-sweet VERB ...`: hands over to one file per verb in `itrex_sweet.commands`."""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from itrex_sweet.errors import NoGainError, SweetError
from itrex_sweet.extras import naming_extras
from itrex_sweet.version import __version__

VERBS = (
    "train",
    "add-exits",
    "accelerate",
    "predict",
    "evaluate",
    "bench",
    "quantize",
    "prune-exits",
    "calibrate",
    "drift",
    "export",
    "info",
    "demo",
)

SUCCESS, FAILURE, USAGE_ERROR, NO_GAIN = 0, 1, 2, 3
_BY_SIGNAL = 128  # and the signal's number, as shells report it


class _Ended(BaseException):
    """This process was told to end: raised where it stands, so that files and processes are cleaned up on the way."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: without the program's name; that of the process if absent.

    Returns:
        exit status: 0 for success, 1 for a failure (one line on standard error names it), 2 for wrong usage, 3 where
        exits would gain nothing, 128 and a signal's number where that ended it.
    """
    try:
        with _orderly_end(), _any_text_printable():
            status = _run(argv)
            _flush()  # here, where a closed pipe can still be told from a failure
        return status
    except KeyboardInterrupt:
        _say("interrupted")
        return _BY_SIGNAL + signal.SIGINT
    except _Ended as ended:
        _say("ended by a signal")
        return _BY_SIGNAL + ended.number
    except BrokenPipeError:
        _forget_stdout()
        return _BY_SIGNAL + signal.SIGPIPE
    except OSError as error:  # standard output on a full disk
        _forget_stdout()
        _say(f"error: standard output cannot be written ({error}).")
        return FAILURE


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parse(argv)
        with _logging_to_stderr():
            try:
                with naming_extras(f"itrex-sweet {args.verb}"):
                    return args.run(args)
            except BrokenPipeError:
                raise
            except (SweetError, OSError, MemoryError) as error:
                if args.debug:
                    traceback.print_exc()
                if isinstance(error, NoGainError):
                    _say(f"no gain: {_one_line(error)}")
                    return NO_GAIN
                _say(f"error: {_one_line(error)}")
                return FAILURE
    except SystemExit as stop:  # argparse has printed help, or what is wrong with the arguments
        return stop.code if isinstance(stop.code, int) else SUCCESS


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{': ' if said else ''}{said}"
    return said or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands. The documentation is generated from it too."""
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
        command = importlib.import_module(f"itrex_sweet.commands.{verb.replace('-', '_')}")
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
        _refuse_empty_arguments(of_verb)
        of_verb.set_defaults(run=command.run, parser=of_verb, takes_more=getattr(command, "TAKES_MORE", False))
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else list(argv)
    if any("\0" in part for part in argv):  # no path, and functions of the operating system take none such
        parser.exit(FAILURE, "error: an argument holds a NUL character.\n")
    args, more = parser.parse_known_args(argv)
    if more and not args.takes_more:
        args.parser.error(f"unknown arguments: {' '.join(more)}")
    args.more = more
    args.debug = getattr(args, "debug", False)
    return args


def _refuse_empty_arguments(parser: argparse.ArgumentParser) -> None:
    """Has names and paths refused that are empty, as from a variable that is not set: a path would be the working
    directory."""

    def filled(text: str, kind: Callable[[str], Any]) -> Any:
        if not text:
            raise argparse.ArgumentTypeError("it is empty (a variable that is not set?)")
        return kind(text)

    for action in parser._actions:
        if action.type in (None, Path) and action.choices is None and action.nargs != 0:
            action.type = functools.partial(filled, kind=action.type or str)


class _Lines(logging.Formatter):
    """`warning: ...`, and plain text for what merely informs."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {message}"


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Has SIGTERM and SIGHUP raise, once; the second ends the process at once, in case the first is not heeded."""
    numbers = [signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else [signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # handlers are the main thread's
    # A handler of the embedding program stays, and so does SIG_IGN, which nohup sets.
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Ended(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _any_text_printable() -> Iterator[None]:
    """Prints what standard output's encoding lacks as escapes: names of files and labels may hold any character."""
    stream = sys.stdout
    before = getattr(stream, "errors", None)
    if before != "strict" or not hasattr(stream, "reconfigure"):
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # the pipe is closed, or the stream is
            stream.reconfigure(errors=before)


def _flush() -> None:
    if sys.stdout is not None:  # as it is where the shell has closed it
        sys.stdout.flush()


def _say(line: str) -> None:
    """Writes to standard error, if there is one; `print` would turn to standard output."""
    if sys.stderr is not None:
        encoding = sys.stderr.encoding or "utf-8"
        with suppress(OSError, ValueError):
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Our own log on standard error while a command runs; other loggers are left alone."""
    ours = logging.getLogger("itrex_sweet")
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
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
    with suppress(OSError, ValueError, AttributeError):  # a stream without a file descriptor needs no replacement
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
