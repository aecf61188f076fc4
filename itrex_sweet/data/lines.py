"""Reads the lines of files and streams: encoding, byte-order mark and line ends, the same for every format."""

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
MAX_LINE = 1 << 24  # characters; bounds the memory, and is far longer than any text

# First bytes of files in other encodings and formats -> their description, and what to do.
_FOREIGN = {
    b"\xff\xfe\x00\x00": "UTF-32; save it as UTF-8",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32; save it as UTF-8",
    b"\x1f\x8b": "compressed with gzip; rename it to .gz, or decompress it",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; save it as CSV",
    b"PAR1": "a Parquet file; name it .parquet",
}

_LINE_END = re.compile(r"\r\n|\r|\n")


def is_readable(path: Path) -> bool:
    """Returns whether a path can be opened as a source of texts: a file or a named pipe."""
    return path.exists() and not path.is_dir()


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """Opens a file as text, and decompresses it if its name ends in `.gz`.

    Raises:
        InputError: it cannot be opened, or does not contain UTF-8 text.
    """
    try:
        stream = gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise InputError(f"{path} cannot be read ({error}).") from error
    with stream:
        yield as_text(stream, str(path))


def standard_input() -> TextIO:
    """Returns standard input as UTF-8 text, for every locale; invalid bytes affect only their own line.

    Raises:
        InputError: it is closed, or does not contain UTF-8 text.
    """
    if sys.stdin is None:
        raise InputError(f"{STDIN} is closed: name a file, or pipe texts to it.")
    try:
        # A separate reader: the interpreter cannot shut down while a thread waits in the reader of `sys.stdin`.
        stream = _BlockingReader(sys.stdin.fileno(), "rb", closefd=False)
    except (OSError, ValueError, AttributeError):  # replaced by something in memory
        stream = getattr(sys.stdin, "buffer", None)
        if stream is None:
            return sys.stdin
    return as_text(stream, STDIN)


class _BlockingReader(io.FileIO):
    """Waits for bytes also if the file is in non-blocking mode."""

    def readinto(self, buffer: Any) -> int:
        while (count := super().readinto(buffer)) is None:
            select.select([self], [], [])
        return count


def waits_for_texts(stream: TextIO | None) -> bool:
    """Returns whether reading may wait for a writer: true for a pipe or a terminal, false for a file."""
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def as_text(stream: BinaryIO, name: str) -> TextIO:
    """Returns bytes as text with its line ends; invalid bytes become surrogates, which `text_of` reports.

    Raises:
        InputError: the first bytes are those of another encoding or format.
    """
    peek = getattr(stream, "peek", None)
    if peek is None:
        stream = io.BufferedReader(stream)  # type: ignore[arg-type]
        peek = stream.peek
    try:
        head = peek(4)[:4]
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{name} cannot be read ({error}).") from error
    for magic, description in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{name} is {description}.")
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")


def physical_lines(stream: Iterable[str], name: str) -> Iterator[str]:
    r"""Yields lines with their ends, which are `\n`, `\r\n` or `\r`, in files and streams.

    Raises:
        InputError: reading fails, or a line is too long.
    """
    readline = getattr(stream, "readline", None)
    pieces = iter(stream) if readline is None else iter(lambda: readline(MAX_LINE + 1), "")
    number = 0
    while True:
        try:
            piece = next(pieces, None)
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            raise InputError(f"{name} cannot be read ({error}).") from error
        if piece is None:
            return
        if len(piece) > MAX_LINE:
            raise InputError(f"{name}, line {number + 1}: longer than {MAX_LINE} characters.")
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
    """Returns a line without its end."""
    return line.rstrip("\r\n")
