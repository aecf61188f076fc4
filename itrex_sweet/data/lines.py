"""Lines of files and streams: one rule for encodings, byte-order marks and line ends, whatever the format."""

from __future__ import annotations

import gzip
import io
import os
import re
import select
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from itrex_sweet.errors import InputError

STDIN = "<stdin>"
LONGEST_LINE = 1 << 24  # characters; a bound on memory, far above what a text holds

# First bytes of files that are no UTF-8 text → what they are, and what to do.
_FOREIGN = {
    b"\xff\xfe\x00\x00": "UTF-32; save it as UTF-8",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32; save it as UTF-8",
    b"\x1f\x8b": "compressed by gzip; name it .gz, or unpack it first",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; save it as CSV",
    b"PAR1": "a Parquet file; save it as CSV or JSON lines",
}

_LINE_END = re.compile(r"\r\n|\r|\n")


def is_readable(path: Path) -> bool:
    """True if a path can be opened as a source of texts: a file, or a pipe that has a name."""
    return path.exists() and not path.is_dir()


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A file as text, unpacked where it is named `.gz`.

    Raises:
        InputError: it cannot be opened, or does not hold UTF-8 text.
    """
    try:
        stream = gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so it cannot be read.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise InputError(f"{path} cannot be read ({error}).") from error
    with stream:
        yield as_text(stream, str(path))


def standard_input() -> TextIO:
    """Standard input as UTF-8, whatever the locale; bytes that are not UTF-8 spoil only their own line.

    Raises:
        InputError: it is closed, or does not hold UTF-8 text.
    """
    if sys.stdin is None:
        raise InputError(f"{STDIN} is closed: name a file, or pipe texts in.")
    try:
        # A reader of its own: the interpreter ends badly while a thread waits in that of `sys.stdin`.
        stream = _Patient(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError, AttributeError):  # replaced by something in memory
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:
            return sys.stdin
    return as_text(stream, STDIN)


class _Patient(io.FileIO):
    """Waits for bytes also where whoever opened the file said that reading shall not wait."""

    def readinto(self, buffer: Any) -> int:
        while (count := super().readinto(buffer)) is None:
            select.select([self], [], [])
        return count


def waits_for_texts(stream: TextIO | None) -> bool:
    """True if reading may wait for whoever writes, as with a pipe or a terminal and unlike a file."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def as_text(stream: BinaryIO, name: str) -> TextIO:
    """Bytes as text with its line ends; those that are not UTF-8 become surrogates, for `text_of` to name.

    Raises:
        InputError: the first bytes are those of something else than UTF-8.
    """
    peek = getattr(stream, "peek", None)
    if peek is None:
        stream = io.BufferedReader(stream)  # type: ignore[arg-type]
        peek = stream.peek
    try:
        head = peek(4)[:4]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read ({error}).") from error
    for magic, is_what in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{name} is {is_what}.")
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")


def physical_lines(stream: Iterable[str], name: str) -> Iterator[str]:
    r"""Lines with their ends: `\n`, `\r\n` or `\r`, and nothing else, in files and streams alike.

    Raises:
        InputError: the stream breaks off, or a line is too long to be one.
    """
    readline = getattr(stream, "readline", None)
    pieces = iter(stream) if readline is None else iter(lambda: readline(LONGEST_LINE + 1), "")
    number = 0
    while True:
        try:
            piece = next(pieces, None)
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            raise InputError(f"{name} cannot be read ({error}).") from error
        if piece is None:
            return
        if len(piece) > LONGEST_LINE:
            raise InputError(f"{name}, line {number + 1}: longer than {LONGEST_LINE} characters.")
        if number == 0:
            piece = piece.removeprefix("\ufeff")
        for line in _split(piece):
            number += 1
            yield line


def _split(piece: str) -> Iterator[str]:
    if "\r" not in piece and piece.find("\n") in (-1, len(piece) - 1):
        yield piece  # the usual case
        return
    start = 0
    for end in _LINE_END.finditer(piece):
        yield piece[start : end.end()]
        start = end.end()
    if start < len(piece):
        yield piece[start:]


def without_end(line: str) -> str:
    """A line without its end."""
    return line.rstrip("\r\n")
