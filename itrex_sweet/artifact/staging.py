"""Writes folders atomically: files are written to a hidden staging folder, which then replaces the target."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from itrex_sweet.artifact.commit import (
    INSIDE,
    MARKER,
    commit_inside,
    exchange_into,
    finish_commit,
    restore_foreign_files,
    sync_folder,
    sync_tree,
)
from itrex_sweet.artifact.exchange import locked, release, try_lock
from itrex_sweet.artifact.files import artifact_files
from itrex_sweet.errors import ArtifactError

Dropped = Callable[[Path], Iterable[str]]
_LONGEST = 120  # bytes of the target's name in that of its staging folder; file systems take names of 255


@contextmanager
def staged(
    directory: Path, dropped: Dropped = lambda folder: (), check: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """Yields a hidden staging folder, which replaces `directory` if the block succeeds.

    Args:
        directory: created if missing; a symbolic link is followed.
        dropped: function of the folder; returns names of files to remove. Other files are kept. Those of the new
            folder are always replaced.
        check: called under the lock, before anything is changed.

    Raises:
        ArtifactError: the folder cannot be written; it is unchanged.
    """
    from safetensors import SafetensorError

    try:
        with ExitStack() as stack:
            staging = stack.enter_context(_Staging.create(directory))
            yield staging.folder
            staging.commit(dropped, check)
    except (OSError, SafetensorError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"cannot write {directory} ({error}); it is unchanged.") from error


def require_writable(directory: Path) -> None:
    """Checks that a folder can be written, without changing it.

    Raises:
        ArtifactError: it cannot be created or written.
    """
    try:
        with _Staging.create(directory):
            pass
    except OSError as error:
        raise ArtifactError(f"cannot write {directory} ({error}).") from error


def resume(directory: Path) -> None:
    """Finishes an interrupted commit, if the folder is writable and no other process writes it."""
    with suppress(OSError):
        target = _resolve(directory)
        lock = try_lock(_lock_folder(target))
        if lock is not None:
            try:
                finish_commit(target)
            finally:
                release(lock)


class _Staging:
    """A staging folder with a lock, which shows other processes that its writer is running."""

    def __init__(self, target: Path, folder: Path, created: list[Path]):
        self.target, self.folder, self.created = target, folder, created
        self.is_inside = folder.parent == target
        self._is_old = False  # True once the folder holds the former target, which is not needed
        self._lock = try_lock(folder)

    @classmethod
    @contextmanager
    def create(cls, directory: Path) -> Iterator[_Staging]:
        """Creates a staging folder beside the target, or inside it if that is impossible; removes it at the end."""
        target = _resolve(directory)
        created = [parent for parent in target.parents if not parent.exists()]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(_lock_folder(target)):
                _clean_up(target)
                staging = cls(target, _create_for(target), created)
            try:
                (staging.folder / MARKER).touch()
                yield staging
            finally:
                staging.close()
        finally:
            for parent in created:
                with suppress(OSError):
                    parent.rmdir()

    def commit(self, dropped: Dropped, check: Callable[[], None]) -> None:
        """Replaces the target by the folder, as described in `commit`."""
        self._set_modes()
        sync_tree(self.folder)
        with locked(_lock_folder(self.target)):
            check()
            if not os.path.lexists(self.target):
                os.rename(self.folder, self.target)
                (self.target / MARKER).unlink()
            else:
                names = list(dropped(self.target))
                self._is_old = not self.is_inside and exchange_into(self.folder, self.target, names)
                if not self._is_old:
                    self._move_inside()
                    commit_inside(self.folder, self.target, names)
            sync_folder(self.target.parent)

    def close(self) -> None:
        """Removes the folder, which may be the former target, and releases the lock."""
        if self._is_old:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            _remove(self.folder, self.target)
        if self._lock is not None:
            release(self._lock)

    def _move_inside(self) -> None:
        if self.is_inside:
            return
        inside = Path(tempfile.mkdtemp(prefix=INSIDE, dir=self.target))
        (inside / MARKER).touch()
        for path in list(self.folder.iterdir()):
            if path.name != MARKER:
                shutil.move(path, inside / path.name)
        sync_tree(inside)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = inside

    def _set_modes(self) -> None:
        """Sets permissions by the umask: `mkdtemp` and safetensors let only the owner read."""
        mode = (self.folder / MARKER).stat().st_mode & 0o777
        for path in self.folder.rglob("*"):
            if path.is_file() and path.stat().st_nlink == 1:
                path.chmod(mode)
        if not self.target.exists():
            self.folder.chmod(mode | (mode & 0o444) >> 2)
        elif not self.is_inside:
            status = self.target.stat()
            with suppress(OSError):
                os.chown(self.folder, status.st_uid, status.st_gid)
            shutil.copystat(self.target, self.folder)
            os.utime(self.folder)


def _resolve(directory: Path) -> Path:
    """Resolves the path of a folder, which need not exist."""
    try:
        return Path(os.path.realpath(directory))
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(directory)) from error


def _create_for(target: Path) -> Path:
    if target.exists():
        if not target.is_dir():
            raise FileExistsError(errno.EEXIST, "a file is in the way", str(target))
        if not os.access(target, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        if not _can_exchange(target):
            return Path(tempfile.mkdtemp(prefix=INSIDE, dir=target))
    return Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))


def _can_exchange(target: Path) -> bool:
    """Returns whether the folder can be exchanged: not a mount point or this process's working directory."""
    if os.path.ismount(target) or not os.access(target.parent, os.W_OK | os.X_OK):
        return False
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:
        return True
    return here != target and target not in here.parents


def _prefix(target: Path) -> str:
    """Returns the prefix of the names of staging folders of a target."""
    name = target.name
    encoded = os.fsencode(name)
    if len(encoded) > _LONGEST:
        name = f"{encoded[:_LONGEST].decode(errors='ignore')}-{hashlib.sha256(encoded).hexdigest()[:16]}"
    return f".{name}{INSIDE}"


def _lock_folder(target: Path) -> Path:
    return target.parent if os.access(target.parent, os.R_OK) else target


def _clean_up(target: Path) -> None:
    """Cleans up after killed writers: finishes a commit, restores other files, and removes staging folders."""
    pattern = re.compile(re.escape(_prefix(target)) + r"[a-z0-9_]{8}")
    names = os.listdir(target.parent) if os.access(target.parent, os.R_OK) else ()
    leftovers = [target.parent / name for name in names if pattern.fullmatch(name)]
    if target.is_dir():
        finish_commit(target)
        leftovers += target.glob(f"{INSIDE}*")
    for folder in leftovers:
        if (lock := try_lock(folder)) is not None:
            try:
                _remove(folder, target)
            finally:
                release(lock)
    (target / MARKER).unlink(missing_ok=True)


def _remove(folder: Path, target: Path) -> None:
    """Removes a staging folder; one without a marker is an old target, whose other files are restored first."""
    with suppress(OSError):  # files that cannot be moved back stay in the folder
        if folder.parent != target and not (folder / MARKER).exists():
            restore_foreign_files(folder, target, artifact_files(folder))
        shutil.rmtree(folder)
