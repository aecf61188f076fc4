"""Child processes that end with this process, and temporary folders that are removed even if it is killed.

A command runs as the child of a small supervising process. That process terminates the command's process group when it
receives SIGTERM, SIGINT or SIGHUP, or when its own parent has ended: a parent that was ended by SIGKILL cannot clean up
itself. This file is also the script of the supervising process, so it imports the standard library only.
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
_TERMINATION_SECONDS = 10.0  # allowed for the supervising process before it is killed
_LOCK_FILE = ".in-use"
_UNLOCKED_SECONDS = 3600.0  # a folder without a lock that is older counts as abandoned
_PR_SET_PDEATHSIG = 1


@contextmanager
def supervised(command: Sequence[str], folder: Path | None = None, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Runs a command while the block runs, waits for it at the end of the block, and terminates it if the block raises.

    Args:
        command: program and arguments.
        folder: removed if this process is killed; otherwise the caller removes it.
        options: those of `subprocess.Popen`.

    Yields:
        The process; its `returncode` is that of the command, negative for a signal.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid()), str(folder or _NO_FOLDER), *command],
        start_new_session=True,  # Ctrl-C in a terminal reaches this process only, which then terminates the command
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

    Does not wait for the end of the pipe, which a surviving child of the process may keep open.

    Args:
        process: no other code reads its standard output.
    """
    descriptor, rest = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            has_ended = process.poll() is not None  # before the last read, so that no output is missed
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
    """Creates a temporary folder and removes it at the end of the block.

    Also removes the folders with the same prefix that killed processes left behind.

    Args:
        prefix: prefix of the folder's name, in the system's folder for temporary files.
    """
    _remove_abandoned(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = None
    try:
        lock = _locked(new := folder / f"{_LOCK_FILE}-new", os.O_CREAT)
        new.rename(folder / _LOCK_FILE)  # the file never exists without its lock
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_abandoned(prefix: str) -> None:
    """Removes the folders of this user whose lock no process holds."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # in use, or removed by another process in the meantime
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            if (folder / _LOCK_FILE).exists():
                os.close(_locked(folder / _LOCK_FILE))
            elif time.time() - status.st_mtime < _UNLOCKED_SECONDS:
                continue  # its owner may be about to lock it
            shutil.rmtree(folder, ignore_errors=True)


def _locked(file: Path, flags: int = 0) -> int:
    """Locks a file and returns its descriptor; the kernel releases the lock when this process ends.

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
    """Terminates a supervised command and waits for its end."""
    process.terminate()
    try:
        process.wait(_TERMINATION_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


# ------------------------------------------------------------------------------- the supervising process


def main(parent: int, folder: str, command: Sequence[str]) -> int:
    """Runs a command; terminates it on a signal or when the process `parent` ends. Returns the exit status."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: received.append(number))
    own_id = os.getpid()
    if received or os.getppid() != parent:
        return _abandoned(folder)
    child = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=lambda: _die_with(own_id),  # safe in a process with a single thread
    )
    while child.poll() is None:
        if received or os.getppid() != parent:
            _end_group(child)
            return _abandoned(folder if os.getppid() != parent else _NO_FOLDER)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
    _signal_group(child, signal.SIGKILL)  # processes that the command left behind
    if child.returncode < 0:
        return _die_of(-child.returncode)
    return child.returncode


def _abandoned(folder: str) -> int:
    if folder != _NO_FOLDER:
        shutil.rmtree(folder, ignore_errors=True)
    return 128 + signal.SIGTERM


def _end_group(child: subprocess.Popen[Any]) -> None:
    """Terminates the process group of a command: SIGTERM, then SIGKILL."""
    _signal_group(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE_SECONDS)
    _signal_group(child, signal.SIGKILL)
    child.wait()


def _signal_group(child: subprocess.Popen[Any], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _die_of(number: int) -> int:
    """Ends this process with the signal that ended the command."""
    with suppress(OSError, ValueError):  # SIGKILL takes no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number  # a signal that does not end a process


def _die_with(parent: int) -> None:
    """Sets the signal that the kernel sends to this process when its parent ends (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(128 + signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
