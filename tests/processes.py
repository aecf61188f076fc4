"""Finds processes that a command leaves behind, for tests that end it early."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

MARK = "ITREX_SWEET_TEST_MARK"  # in the environment, which children inherit whatever session they start


def marked(value: str) -> list[int]:
    """Returns the running processes that have this mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{MARK}={value}".encode() in environment and state != "Z":
            found.append(int(folder.name))
    return found


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    """Returns whether a condition becomes true within a time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return holds()
