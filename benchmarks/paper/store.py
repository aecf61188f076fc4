"""Stores results of many runs in one file, a line per run, which several processes may append to concurrently."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from record import RESULTS, RUNS

PAPER = RESULTS / "paper.json"
DECOUPLED = RESULTS / "decoupled.json"
TRIALS = RESULTS / "paper_trials.json"  # rejected variants of the recipe, whose code is not kept

Result = dict[str, Any]
_read: dict[Path, tuple[int, dict[str, Result]]] = {}  # file → its modification time and contents


def read(path: Path | None = None) -> dict[str, Result]:
    """Returns name → result of a file, `PAPER` by default; empty if it does not exist."""
    path = path or PAPER
    if not path.is_file():
        return {}
    modified = path.stat().st_mtime_ns
    if path not in _read or _read[path][0] != modified:
        _read[path] = modified, json.loads(path.read_text(encoding="utf-8"))
    return _read[path][1]


def add(name: str, result: Result, path: Path | None = None) -> None:
    """Adds a result to a file, `PAPER` by default, or replaces it."""
    path = path or PAPER
    with _locked():
        _read.pop(path, None)  # another process may have written it within the resolution of its modification time
        write(path, {**read(path), name: result})


def write(path: Path, results: dict[str, Result]) -> None:
    """Writes results sorted by name, a line each."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(results[name])}" for name in sorted(results))
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    unfinished.replace(path)
    _read.pop(path, None)


@contextmanager
def _locked() -> Iterator[None]:
    RUNS.mkdir(parents=True, exist_ok=True)
    with (RUNS / "paper.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
