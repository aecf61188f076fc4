"""Runs cases in forked processes, so that crashes, hangs and excessive memory are reported as findings."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RunCase = Callable[[Any, Path], "str | None"]

_PAGES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Finding:
    """A failed case."""

    case: Any
    message: str


@dataclass(frozen=True)
class Limits:
    """Limits per case: seconds, and bytes of additional memory."""

    seconds: float = 10.0
    memory: int = 2 << 30


class Worker:
    """A process that runs cases sequentially."""

    def __init__(self, run: RunCase, work: Path, limits: Limits):
        context = multiprocessing.get_context("fork")
        self.limits = limits
        self._here, there = context.Pipe()
        self._log = work / "stderr"
        work.mkdir(parents=True, exist_ok=True)
        self._process = context.Process(target=_serve, args=(there, run, work, self._log, limits), daemon=True)
        self._process.start()
        there.close()

    def run(self, case: Any) -> str | None:
        """Runs a case; returns its failure or `None`. After a crash or a hang the worker cannot be used again."""
        self._here.send(case)
        try:
            if not self._here.poll(self.limits.seconds):
                os.kill(self._process.pid, signal.SIGUSR1)  # prints a traceback
                time.sleep(0.2)
                self.stop()
                return f"hang: not finished after {self.limits.seconds:g} s{self._stderr()}"
            return self._here.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            return f"crash: {name}{self._stderr()}"

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()

    def _stderr(self) -> str:
        text = self._log.read_text(errors="replace") if self._log.is_file() else ""
        return f"\n{text[-3000:]}" if text.strip() else ""


def _serve(connection: Any, run: RunCase, work: Path, log: Path, limits: Limits) -> None:
    import faulthandler

    with log.open("w") as stream:
        os.dup2(stream.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        faulthandler.enable(stream)
        faulthandler.register(signal.SIGUSR1, stream)
        if "libasan" not in os.environ.get("LD_PRELOAD", ""):
            size = _statm(0) + limits.memory
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        before = _statm(1)
        while True:
            try:
                case = connection.recv()
            except EOFError:
                os._exit(0)
            message = run(case, work)
            stream.seek(0)
            stream.truncate()
            if message is None and _statm(1) - before > limits.memory:
                message = f"memory: {(_statm(1) - before) >> 20} MiB more"
            connection.send(message)


def _statm(column: int) -> int:
    """Returns the bytes of address space (0) or resident memory (1) of this process."""
    return int(Path("/proc/self/statm").read_text().split()[column]) * _PAGES


def find_failures(cases: Iterable[Any], run: RunCase, work: Path, limits: Limits | None = None) -> Iterator[Finding]:
    """Runs cases and yields those that fail, each reduced to the simplest case that still fails."""
    limits = limits or Limits()
    worker = Worker(run, work / "worker", limits)
    start = time.perf_counter()
    for done, case in enumerate(cases, start=1):
        message = worker.run(case)
        if not worker.is_alive:
            worker = Worker(run, work / "worker", limits)
        if message is not None:
            yield Finding(*_reduced(case, message, run, work, limits))
        if done % 1000 == 0:
            milliseconds = 1000 * (time.perf_counter() - start) / done
            print(f"{done} cases, {milliseconds:.1f} ms each", file=sys.stderr, flush=True)
    worker.stop()


def _reduced(case: Any, message: str, run: RunCase, work: Path, limits: Limits) -> tuple[Any, str]:
    """Returns the simplest case that still fails."""
    for smaller in getattr(case, "simplifications", list)():
        worker = Worker(run, work / "reducing", limits)
        found = worker.run(smaller)
        worker.stop()
        if found is not None:
            return _reduced(smaller, found, run, work, limits)
    return case, message
