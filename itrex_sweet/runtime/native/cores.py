"""The number of threads to compute with: from the request, affinity, physical cores, and the control group's quota.

In this order:

1. `threads=` of a call that loads a model, or `--threads` of a command, is taken as it is.
2. Else the physical cores that affinity allows (`taskset`, `--cpuset-cpus`), or less where something says less: the
   control group's CPU quota (`docker run --cpus`, Kubernetes), rounded down, and what torch computes with:
   `torch.set_num_threads`, or `OMP_NUM_THREADS`, which torch takes when it is imported. Where torch is not loaded,
   `OMP_NUM_THREADS` itself.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from pathlib import Path
from typing import Any

from itrex_sweet.errors import ConfigError

_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_MOST_OF_THE_ENGINE = 1024  # kMostThreads


def default_threads() -> int:
    """Threads to compute with where nobody says how many, at least 1; this module says how it is found."""
    return max(1, min(thread_limits().values()))


def thread_limits() -> dict[str, int]:
    """Each thing that limits `default_threads` → the number of threads it allows."""
    limits = {"physical cores": physical_cores()}
    quota = cpu_quota()
    if quota is not None:
        # A thread that only has a part of a core would keep the others waiting.
        limits["CPU quota"] = max(1, math.floor(quota))
    torch_threads = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if torch_threads is not None:
        limits["torch.get_num_threads()"] = torch_threads()
    elif (asked := _openmp_threads()) is not None:
        limits["OMP_NUM_THREADS"] = asked
    return limits


def checked_threads(threads: Any) -> int:
    """The number of threads that somebody asked for, if it is one.

    More than the cores are allowed, up to four for each processor of the machine, and 64 anywhere.

    Raises:
        ConfigError: no whole number, below 1, or more than that.
    """
    most = min(max(64, 4 * (os.cpu_count() or 1)), _MOST_OF_THE_ENGINE)
    try:
        number = 0 if isinstance(threads, bool) else operator.index(threads)
    except TypeError:
        number = 0
    if not 1 <= number <= most:
        raise ConfigError(f"threads={threads!r}: a whole number from 1 to {most} on this machine.")
    return number


def _openmp_threads() -> int | None:
    """The first number of `OMP_NUM_THREADS`; `None` where OpenMP would not take it either."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    is_number = first.isascii() and first.isdigit() and len(first) < 10
    return int(first) or None if is_number else None


def physical_cores(root: Path = _CPUS) -> int:
    """Cores among the processors that affinity allows; one whose siblings are unknown counts as a core of its own."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = affinity(0) if affinity else range(os.cpu_count() or 1)
    return len({_siblings(root / f"cpu{cpu}") or f"alone {cpu}" for cpu in allowed}) or 1


def _siblings(cpu: Path) -> str:
    try:
        return (cpu / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return ""


def cpu_quota(root: Path = _CGROUPS) -> float | None:
    """Cores' worth of time granted by the control group (version 2, then 1)."""
    quotas = [quota for directory in _own_groups(root) if (quota := _quota_of(directory)) is not None]
    return min(quotas, default=None)


def _own_groups(root: Path) -> list[Path]:
    """This process's control groups, from the innermost to the root."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().splitlines()
    except OSError:
        own = []
    groups = [root, root / "cpu"]
    for line in own:
        path = root / line.rpartition(":")[2].lstrip("/")
        groups.extend(group for group in (path, *path.parents) if group.is_relative_to(root))
    return groups


def _quota_of(directory: Path) -> float | None:
    try:
        if (directory / "cpu.max").is_file():
            quota, period = (directory / "cpu.max").read_text().split()
        else:
            quota = (directory / "cpu.cfs_quota_us").read_text()
            period = (directory / "cpu.cfs_period_us").read_text()
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError):
        return None
