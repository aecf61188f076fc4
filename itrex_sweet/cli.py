"""The command line `itrex-sweet VERB ...`; each verb is a module of `itrex_sweet.commands`."""

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
    "serve",
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
# Neural Compressor and transformers import torchao, which warns of CUDA libraries, and torch of how torchao registers
# classes.
_NOISY_LOGGERS = ("torchao", "torch.utils._pytree")
_BY_SIGNAL = 128  # plus the number of the signal, as shells report it


class _Terminated(BaseException):
    """Raised by a signal handler, so that files and processes are cleaned up while the stack unwinds."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: the arguments; by default those of the process.

    Returns:
        The exit status: 0 for success, 1 for an error (reported in one line on standard error), 2 for wrong usage, 3 if
        exits give no speed-up, 128 plus the signal's number if a signal ended the command.
    """
    try:
        with _signals_raise(), _escape_unprintable():
            status = _run(argv)
            _flush()  # raises BrokenPipeError for a closed pipe
        return status
    except KeyboardInterrupt:
        _print_error("interrupted")
        return _BY_SIGNAL + signal.SIGINT
    except _Terminated as termination:
        _print_error("terminated by a signal")
        return _BY_SIGNAL + termination.number
    except BrokenPipeError:
        _discard_stdout()
        return _BY_SIGNAL + signal.SIGPIPE
    except OSError as error:  # standard output on a full disk
        _discard_stdout()
        _print_error(f"error: cannot write to standard output ({error}).")
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
                    _print_error(f"no gain: {_one_line(error)}")
                    return NO_GAIN
                _print_error(f"error: {_one_line(error)}")
                return FAILURE
    except SystemExit as stop:  # argparse has printed the help or a usage error
        return stop.code if isinstance(stop.code, int) else SUCCESS


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{': ' if message else ''}{message}"
    return message or type(error).__name__


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands. The documentation is generated from it too."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="itrex-sweet",
        description="Early-exit text classification on the CPU: train, run and measure models.",
        epilog="Options of a verb: itrex-sweet VERB --help. Results go to standard output, logs to standard error.",
        parents=[debug],
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"itrex-sweet {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        # These modules import torch only when they run, so that help is printed quickly.
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
    if any("\0" in part for part in argv):  # the operating system accepts it in no path
        parser.exit(FAILURE, "error: an argument contains a NUL character.\n")
    args, more = parser.parse_known_args(argv)
    if more and not args.takes_more:
        args.parser.error(f"unknown arguments: {' '.join(more)}")
    args.more = more
    args.debug = getattr(args, "debug", False)
    return args


def _refuse_empty_arguments(parser: argparse.ArgumentParser) -> None:
    """Rejects empty names and paths, for instance from a shell variable that is not set: an empty path is the working
    directory."""

    def non_empty(text: str, kind: Callable[[str], Any]) -> Any:
        if not text:
            raise argparse.ArgumentTypeError("it is empty (is a variable not set?)")
        return kind(text)

    for action in parser._actions:
        if action.type in (None, Path) and action.choices is None and action.nargs != 0:
            action.type = functools.partial(non_empty, kind=action.type or str)


class _Formatter(logging.Formatter):
    """Formats warnings and errors as `warning: ...`, other messages as plain text."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        return message if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {message}"


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Makes the first SIGTERM or SIGHUP raise `_Terminated`; a second one ends the process immediately."""
    numbers = [signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else [signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may set handlers
    # Handlers of an embedding program are kept, and so is SIG_IGN, which nohup sets.
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Terminated(number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _escape_unprintable() -> Iterator[None]:
    """Prints characters that the encoding of standard output lacks as escapes, for instance in names of files."""
    stream = sys.stdout
    before = getattr(stream, "errors", None)
    if before != "strict" or not hasattr(stream, "reconfigure"):
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(OSError, ValueError):  # the pipe or the stream is closed
            stream.reconfigure(errors=before)


def _flush() -> None:
    if sys.stdout is not None:  # None if the shell has closed it
        sys.stdout.flush()


def _print_error(line: str) -> None:
    """Prints a line on standard error, if it is open; `print` would write to standard output instead of `None`."""
    if sys.stderr is not None:
        encoding = sys.stderr.encoding or "utf-8"
        with suppress(OSError, ValueError):
            print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Writes the log of this package to standard error, without the warnings of `_NOISY_LOGGERS`."""
    ours = logging.getLogger("itrex_sweet")
    noisy = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    for logger in noisy:
        logger.addFilter(_is_error)
    handler = logging.NullHandler() if sys.stderr is None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        for logger in noisy:
            logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _discard_stdout() -> None:
    """Redirects a closed standard output (`| head`), so that the interpreter reports no error when it flushes it."""
    with suppress(OSError, ValueError, AttributeError):  # not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
