"""The input files of a folder of answers, and their fingerprints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from itrex_sweet.data import TextRow, read_text_rows
from itrex_sweet.data.files import FORMAT_OF_SUFFIX, is_parquet, suffix_of
from itrex_sweet.errors import InputError

_HIDDEN = (".", "_")  # first characters of names that are not data, such as Spark's _SUCCESS
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class InputFile:
    """A file of rows.

    Args:
        name: path below the folder that was given, with `/`; the name of a file that was given itself.
        path: path of the file.
        bytes, modified_ns: size and time of modification.
        sha256: hash of its contents; empty until `fingerprinted`.
    """

    name: str
    path: Path
    bytes: int
    modified_ns: int
    sha256: str = ""

    @classmethod
    def of(cls, path: Path, name: str) -> InputFile:
        """Makes the record of a file.

        Raises:
            InputError: it cannot be read.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error}).") from error
        return cls(name, path, status.st_size, status.st_mtime_ns)

    def fingerprinted(self, known: Mapping[str, Any] | None) -> InputFile:
        """Returns the record with the hash of the contents.

        Args:
            known: an earlier record (`recorded`), whose hash is taken over if size and time of modification are equal.

        Raises:
            InputError: the file cannot be read.
        """
        if known and (known.get("bytes"), known.get("modified_ns")) == (self.bytes, self.modified_ns):
            return replace(self, sha256=known["sha256"])
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as stream:
                while block := stream.read(_READ_BYTES):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error}).") from error
        return replace(self, sha256=digest.hexdigest())

    @property
    def recorded(self) -> dict[str, Any]:
        """The record as JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("name", "path")}

    def is_unchanged(self) -> bool:
        """Returns whether the file has the recorded size and time of modification."""
        try:
            now = InputFile.of(self.path, self.name)
        except InputError:
            return False
        return (now.bytes, now.modified_ns) == (self.bytes, self.modified_ns)

    def rows(self, format: str | None, text_column: str | None, pair_column: str | None) -> Iterator[TextRow]:
        """Yields the rows as `read_text_rows`; places begin with the name.

        Raises:
            InputError, ConfigError: as `read_text_rows`.
        """
        return read_text_rows(self.path, format, text_column, pair_column)


def input_files(
    sources: Sequence[str], format: str | None = None, output: str | os.PathLike | None = None
) -> list[InputFile]:
    """Returns the files of sources, in the order of their names.

    Args:
        sources: files, and folders, of which all files with a known suffix are read, also in folders inside. Files and
            folders whose names begin with `.` or `_`, and links to folders, are left out.
        format: if given, files of every suffix are read.
        output: folder of answers, whose files are not read where it is inside of a source.

    Raises:
        InputError: a source does not exist, there is no file, or two files have the same name.
    """
    files: dict[str, InputFile] = {}
    for source in sources:
        top = Path(source)
        if not top.exists():
            raise InputError(f"{source}: no such file or folder.")
        found = sorted(_below(top, format, output)) if top.is_dir() else [top]
        if not found:
            suffixes = " ".join([*FORMAT_OF_SUFFIX, ".parquet"])
            raise InputError(f"{source} contains no file of a known format ({suffixes}, also .gz); name it: --format.")
        for path in found:
            name = path.relative_to(top).as_posix() if top.is_dir() else path.name
            if name in files:
                raise InputError(
                    f"{files[name].path} and {path} have the same name, from which the names of their answers are "
                    "made. Give the folder that contains both, or run the command for each."
                )
            files[name] = InputFile.of(path, name)
    return [files[name] for name in sorted(files)]


def _below(folder: Path, format: str | None, output: str | os.PathLike | None) -> Iterator[Path]:
    left_out = None if output is None else Path(output).resolve()
    for top, folders, names in os.walk(folder, onerror=_refuse):
        if Path(top).resolve() == left_out:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(_HIDDEN)]
        for name in names:
            path = Path(top, name)
            known = format is not None or suffix_of(path) in FORMAT_OF_SUFFIX or is_parquet(path)
            if known and not name.startswith(_HIDDEN) and path.is_file():
                yield path


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error}).") from error
