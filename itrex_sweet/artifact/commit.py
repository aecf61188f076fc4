"""Replaces a folder atomically: if the process is killed, the folder holds the old contents or the new ones.

The new folder is a hidden sibling of the target, complete and on the disk. Both change places in one system call, so
a reader opens either the old artifact or the new one, and keeps that folder open.
Other files (notes, checkpoints, `.git`) are kept: files are linked into the new folder before the exchange, folders are
moved after it. Then the old folder is deleted. After a kill, the next writer finds the sibling: one with a marker was
never exchanged, and is deleted; one without is an old folder, whose other files are restored before it is deleted.

Where folders cannot be exchanged (the target is a mount point, or the file system has no such call), the new folder is
renamed to `.sweet-committed` inside the target. From that step on it is the artifact: `Snapshot` reads it from there.
Its files are then linked over the old ones, the settings last, and the sub-folder is renamed away. After a kill, the
next writer or reader continues that. In the meantime, other programs may see a mixture, whose hashes do not match.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from itrex_sweet.artifact.exchange import exchange
from itrex_sweet.artifact.layout import SETTINGS_FILE, is_inside
from itrex_sweet.artifact.snapshot import COMMITTED

MARKER = ".not-exchanged"
INSIDE = ".incoming-"  # begin of the names of folders inside the target
_DROPPED = ".dropped"  # names with a zero byte between them


def exchange_into(new: Path, target: Path, dropped: Iterable[str]) -> bool:
    """Exchanges a new folder, with its marker, with the target; the old contents are then in `new`.

    Args:
        dropped: names of files that the new folder does not take over; with `/`, of a sub-folder.

    Returns:
        whether the folders were exchanged; if not, nothing was changed.

    Raises:
        OSError: the exchange failed; the target is unchanged.
    """
    dropped = set(dropped)
    linked = []
    for name in foreign_files(target, new, dropped):
        if not _is_folder(target / name):
            with suppress(OSError):  # another's file, or no links here: it is moved later
                (new / name).parent.mkdir(exist_ok=True)
                os.link(target / name, new / name, follow_symlinks=False)
                linked.append(name)
    if not exchange(new, target):
        for name in linked:
            (new / name).unlink()
        return False
    moved: list[str] = []
    try:
        (target / MARKER).unlink()
        for name in linked:  # one that was replaced since it was linked
            if not _is_same_file(new / name, target / name):
                os.replace(new / name, target / name)
                moved.append(name)
        restore_foreign_files(new, target, dropped, moved)
    except OSError:
        (target / MARKER).touch()
        for name in moved:
            os.rename(target / name, new / name)
        exchange(new, target)
        raise
    return True


def restore_foreign_files(old: Path, target: Path, dropped: Iterable[str], moved: list[str] | None = None) -> None:
    """Moves files that do not belong to the artifact from an old folder to the target, unless the name exists there.

    Args:
        moved: names are added here as they are moved.
    """
    for name in foreign_files(old, target, set(dropped)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(old / name, target / name)
        if moved is not None:
            moved.append(name)


def foreign_files(old: Path, new: Path, dropped: set[str]) -> list[str]:
    """Returns names in an old folder that are neither in the new one nor dropped; a folder that is only in the old one
    counts as one name.

    Raises:
        OSError: a file and a folder have the same name.
    """
    merged = {name.split("/")[0] for name in dropped if "/" in name}
    found: list[str] = []

    def visit(folder: str) -> None:
        for name in sorted(os.listdir(old / folder)):
            path = f"{folder}{name}"
            if path in dropped or (not folder and _is_reserved(name)):
                continue
            are_folders = _is_folder(old / path), _is_folder(new / path)
            if are_folders[0] and (are_folders[1] or path in merged):
                visit(f"{path}/")
            elif not os.path.lexists(new / path):
                found.append(path)
            elif any(are_folders):
                raise FileExistsError(errno.EEXIST, "a file and a folder of the same name", str(old / path))

    visit("")
    return found


def _is_reserved(name: str) -> bool:
    return name in (MARKER, COMMITTED) or name.startswith(INSIDE)


def commit_inside(new: Path, target: Path, dropped: Iterable[str]) -> None:
    """Replaces the files of the target by those of a complete folder inside it.

    Raises:
        OSError: the commit failed; until the folder was renamed, the target is unchanged.
    """
    names = sorted(set(dropped) - set(_files(new)))
    (new / _DROPPED).write_bytes(b"\0".join(map(os.fsencode, names)))
    _sync(new / _DROPPED)
    os.rename(new, target / COMMITTED)
    sync_folder(target)
    finish_commit(target)


def finish_commit(target: Path) -> None:
    """Finishes a commit inside the target, if there is one.

    Raises:
        OSError: the commit failed; the artifact is still read from the sub-folder.
    """
    committed = target / COMMITTED
    if not _is_folder(committed):
        return
    for name in sorted(_files(committed), key=lambda name: (name == SETTINGS_FILE, name)):
        _replace_file(committed / name, target, name)
    for name in map(os.fsdecode, (committed / _DROPPED).read_bytes().split(b"\0")):
        if is_inside(name):
            with suppress(FileNotFoundError, NotADirectoryError):
                (target / name).unlink()
            if "/" in name:
                with suppress(OSError):
                    (target / name).parent.rmdir()
    sync_folder(target)
    done = Path(tempfile.mkdtemp(prefix=INSIDE, dir=target))
    os.rename(committed, done / "done")
    shutil.rmtree(done, ignore_errors=True)


def _replace_file(source: Path, target: Path, name: str) -> None:
    """Replaces a file atomically, and keeps the source."""
    place = target / name
    place.parent.mkdir(exist_ok=True)
    if _is_same_file(source, place):
        return
    between = target / f"{INSIDE}file"
    between.unlink(missing_ok=True)
    try:
        os.link(source, between)
    except OSError:
        shutil.copyfile(source, between)
        _sync(between)
    os.replace(between, place)


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name not in (MARKER, _DROPPED))
    return [path.relative_to(folder).as_posix() for path in paths]


def sync_folder(folder: Path) -> None:
    """Flushes the directory entries of a folder to disk."""
    _sync(folder)


def sync_tree(folder: Path) -> None:
    """Flushes a folder and its contents to disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir():  # some file systems cannot write a folder
            raise error
    finally:
        os.close(descriptor)


def _is_same_file(first: Path, second: Path) -> bool:
    """Returns whether two paths lead to the same file; two missing paths count as the same."""
    try:
        return os.path.samestat(first.lstat(), second.lstat())
    except FileNotFoundError:
        return not os.path.lexists(first)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
