"""Reads each file of a folder once, into private memory."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.artifact.layout import is_inside
from itrex_sweet.artifact.validation.json_text import parse_object
from itrex_sweet.errors import ArtifactError

JSON_LIMIT = 64 << 20  # bytes
SMALL_LIMIT = 512 << 20  # bytes: of files that are kept in memory, such as a tokenizer's
COMMITTED = ".sweet-committed"  # see `commit`: where it exists, it holds the artifact
_CHUNK = 1 << 22
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True)
class FileIdentity:
    """Identity of a file's contents by device, inode, size and modification time."""

    device: int
    inode: int
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        """Creates an identity from the result of `os.stat`."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Snapshot:
    """An open folder: all reads use this folder, even if its path leads to another one later.

    Reads only regular files, also through symbolic links, since a named pipe or a device could block.
    It is a context manager, which closes the folder.

    Args:
        directory: the folder.
        called: name in error messages; default: `directory`.

    Raises:
        ArtifactError: not a folder, or it cannot be opened.
    """

    def __init__(self, directory: str | os.PathLike, called: Path | None = None):
        self.directory = Path(directory) if called is None else called
        self._seen: dict[str, FileIdentity | None] = {}
        try:
            self._outer = self._folder = os.open(directory, _FOLDER)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactError(f"{self.directory} is not a folder.") from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.directory} cannot be opened ({error}).") from error
        with suppress(OSError):
            self._folder = os.open(COMMITTED, _FOLDER | os.O_NOFOLLOW, dir_fd=self._outer)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the folder."""
        for descriptor in {self._outer, self._folder}:
            os.close(descriptor)
        self._outer = self._folder = -1

    def names(self, folder: str = "") -> list[str]:
        """Returns the sorted names in the folder or a sub-folder; none if there is no such sub-folder.

        Raises:
            ArtifactError: it cannot be listed.
        """
        try:
            if not folder:
                return sorted(os.listdir(self._folder))
            descriptor = os.open(folder, _FOLDER, dir_fd=self._folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise ArtifactError(f"{self.directory / folder} cannot be listed ({error}).") from error
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def has(self, name: str) -> bool:
        """Returns whether the name exists."""
        return self._status(name) is not None

    def is_file(self, name: str) -> bool:
        """Returns whether the name is that of a regular file."""
        status = self._status(name)
        return status is not None and stat.S_ISREG(status.st_mode)

    def identity(self, name: str) -> FileIdentity:
        """Returns the identity of a file.

        Raises:
            ArtifactError: it is missing, or not a regular file inside the folder.
        """
        return FileIdentity.of(self._regular(name))

    def read(self, name: str, limit: int = SMALL_LIMIT) -> bytes:
        """Reads a file.

        Args:
            name: relative to the folder, with `/` before a file of a sub-folder.
            limit: maximum size in bytes.

        Raises:
            ArtifactError: it is missing, not a regular file inside the folder, larger, or cannot be read.
        """
        size = self._regular(name).st_size
        if size > limit:
            raise ArtifactError(f"{self.directory / name} has {size} bytes; at most {limit} are read.")
        return self.read_array(name, hashed=False)[0].tobytes()

    def read_array(self, name: str, hashed: bool = True) -> tuple[np.ndarray, str | None, FileIdentity]:
        """Reads a file of any size.

        Args:
            name: as of `read`.
            hashed: whether to compute the SHA-256.

        Returns:
            (bytes,) uint8 in private memory; their SHA-256, or `None`; the file's identity.
        """
        self._regular(name)  # opening a device may already have an effect, so it is looked at before
        path = self.directory / name
        digest = hashlib.sha256()
        try:
            descriptor = os.open(name, _FILE, dir_fd=self._folder)
            with open(descriptor, "rb", buffering=0) as stream:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ArtifactError(f"{path} is not a regular file.")
                contents = np.empty(status.st_size, np.uint8)
                read = 0
                while read < status.st_size:
                    chunk = memoryview(contents)[read : read + _CHUNK]
                    got = stream.readinto(chunk)
                    if not got:
                        raise ArtifactError(f"{path} became shorter while it was read.")
                    if hashed:
                        digest.update(chunk[:got])
                    read += got
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except OSError as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"{path} cannot be read ({error}).") from error
        except MemoryError as error:
            raise ArtifactError(f"{path} has {status.st_size} bytes, more than fit in memory.") from error
        identity = FileIdentity.of(status)
        self._seen[name] = identity
        return contents, digest.hexdigest() if hashed else None, identity

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file that contains an object; raises as `read` and `parse_object`."""
        return parse_object(self.read(name, JSON_LIMIT), self.directory / name)

    def is_current(self) -> bool:
        """Returns whether the path still leads to this folder, and every name that was read to the same file."""
        try:
            if not os.path.samestat(os.stat(self.directory), os.fstat(self._outer)):
                return False
        except OSError:
            return False
        try:
            inner = os.stat(COMMITTED, dir_fd=self._outer, follow_symlinks=False)
        except OSError:
            inner = None
        if inner is None or not stat.S_ISDIR(inner.st_mode):  # only a folder of that name was opened instead
            inner = os.fstat(self._outer)
        if not os.path.samestat(inner, os.fstat(self._folder)):
            return False
        for name, seen in self._seen.items():
            try:
                now = FileIdentity.of(os.stat(name, dir_fd=self._folder))
            except OSError:
                now = None
            if now != seen:
                return False
        return True

    def _status(self, name: str) -> os.stat_result | None:
        if not is_inside(name):
            raise ArtifactError(f"{self.directory}: {name!r} is not the name of a file inside its folder.")
        try:
            status = os.stat(name, dir_fd=self._folder)
        except (FileNotFoundError, NotADirectoryError):
            self._seen.setdefault(name, None)
            return None
        except OSError as error:
            raise ArtifactError(f"{self.directory / name} cannot be read ({error}).") from error
        self._seen.setdefault(name, FileIdentity.of(status))
        return status

    def _regular(self, name: str) -> os.stat_result:
        status = self._status(name)
        if status is None:
            raise self._missing(name)
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{self.directory / name} is not a regular file; copy the whole folder again.")
        return status

    def _missing(self, name: str) -> ArtifactError:
        return ArtifactError(f"{self.directory / name} is missing; copy the whole folder again.")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file outside an artifact; raises as `Snapshot.read_json`."""
    with Snapshot(path.parent) as folder:
        return folder.read_json(path.name)
