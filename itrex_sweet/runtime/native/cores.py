"""How many cores this process may compute on: affinity, physical cores, and the control group's quota."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


def default_threads() -> int:
    """Threads to compute with: physical cores that affinity allows, or the quota, rounded down, where that is less.

    At least 1. A thread that only has a part of a core would keep the others waiting. `OMP_NUM_THREADS` is not asked.
    """
    cores = physical_cores()
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


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
