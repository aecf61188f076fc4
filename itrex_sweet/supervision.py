"""Child processes that do not outlive this one, and folders that are removed even if this process is killed.

A supervised command runs below a small process that watches both sides. It ends the command, with everything that the
command started, when it is told to (SIGTERM, SIGINT, SIGHUP) or when its own parent is gone: a parent that SIGKILL
ended can run no cleanup of its own. This file is also the script of that process, so it imports the standard library
only.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_NO_FOLDER = "-"
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 1.0  # between SIGTERM and SIGKILL
_PATIENCE_SECONDS = 10.0  # for the supervising process itself
_LOCK_FILE = ".in-use"
_UNLOCKED_SECONDS = 3600.0  # age of a folder without a lock from which it counts as abandoned
_PR_SET_PDEATHSIG = 1


@contextmanager
def supervised(command: Sequence[str], folder: Path | None = None, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Runs a command beside the block, waits for it at the block's end, and ends it if the block raises.

    Args:
        command: program and arguments.
        folder: removed if this process dies; otherwise left to the caller.
        options: as of `subprocess.Popen`.

    Yields:
        the process; its `returncode` is the command's, negative for a signal.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid()), str(folder or _NO_FOLDER), *command],
        start_new_session=True,  # Ctrl-C in a terminal reaches this side alone, which then ends the command
        **options,
    )
    with process:
        try:
            yield process
            process.wait()
        except BaseException:
            _end(process)
            raise


def output_lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Yields the lines that a process writes to its standard output, a pipe, until the process ends.

    Does not wait for the end of the pipe: something that the process started may outlive it and hold the pipe open.

    Args:
        process: its standard output is read by nobody else.
    """
    descriptor, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            has_ended = process.poll() is not None  # asked before the last look, so that nothing it wrote is missed
            if selector.select(0.0 if has_ended else _POLL_SECONDS):
                if not (chunk := os.read(descriptor, 1 << 16)):
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            elif has_ended:
                break
    if rest:
        yield rest.decode("utf-8", "replace")


@contextmanager
def working_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder, removed at the block's end; those of the same prefix that killed processes left go too.

    Args:
        prefix: of the folder's name, below the system's folder for temporary files.
    """
    _remove_abandoned(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = None
    try:
        lock = _locked(new := folder / f"{_LOCK_FILE}-new", os.O_CREAT)
        new.rename(folder / _LOCK_FILE)  # so that nobody finds it unlocked
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_abandoned(prefix: str) -> None:
    """Removes folders of this user whose lock nobody holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # in use, or removed by somebody else meanwhile
            facts = folder.lstat()
            if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
                continue
            if (folder / _LOCK_FILE).exists():
                os.close(_locked(folder / _LOCK_FILE))
            elif time.time() - facts.st_mtime < _UNLOCKED_SECONDS:
                continue  # its owner may be about to lock it
            shutil.rmtree(folder, ignore_errors=True)


def _locked(file: Path, flags: int = 0) -> int:
    """Descriptor of a lock that this process holds; the kernel lets go of it when the process ends.

    Raises:
        OSError: another process holds it.
    """
    import fcntl

    descriptor = os.open(file, os.O_RDWR | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _end(process: subprocess.Popen[Any]) -> None:
    """Ends a supervised command, and waits until it is gone."""
    process.terminate()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


# ------------------------------------------------------------------------------- the supervising process


def main(parent: int, folder: str, command: Sequence[str]) -> int:
    """Runs a command until it ends, or ends it once it is told to or `parent` is gone; returns the exit status."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: told.append(received))
    mine = os.getpid()
    if told or os.getppid() != parent:
        return _abandoned(folder)
    child = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=lambda: _die_with(mine),  # safe: there is one thread here
    )
    while child.poll() is None:
        if told or os.getppid() != parent:
            _end_group(child)
            return _abandoned(folder if os.getppid() != parent else _NO_FOLDER)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
    _signal_group(child, signal.SIGKILL)  # what the command left behind
    if child.returncode < 0:
        return _die_of(-child.returncode)
    return child.returncode


def _abandoned(folder: str) -> int:
    if folder != _NO_FOLDER:
        shutil.rmtree(folder, ignore_errors=True)
    return 128 + signal.SIGTERM


def _end_group(child: subprocess.Popen[Any]) -> None:
    """Ends a command and what it started: politely, then surely."""
    _signal_group(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE_SECONDS)
    _signal_group(child, signal.SIGKILL)
    child.wait()


def _signal_group(child: subprocess.Popen[Any], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _die_of(number: int) -> int:
    """Ends this process by the signal that ended the command."""
    with suppress(OSError, ValueError):  # SIGKILL takes no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number  # a signal that does not end a process


def _die_with(parent: int) -> None:
    """Has the kernel end this process when its parent ends, where it can (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
