"""The number of threads of the native engine.

1. An explicit `threads=` or `--threads` has precedence.
2. Otherwise it is the minimum of: the physical cores in the process's affinity (`taskset`, `--cpuset-cpus`); the CPU
   quota of the control group (`docker run --cpus`, Kubernetes), rounded down; and `torch.get_num_threads()` if torch is
   imported, else `OMP_NUM_THREADS`.
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
_MAX_ENGINE_THREADS = 1024  # kMaxThreads in csrc/check.h


def default_threads() -> int:
    """Returns the default number of threads, at least 1; see the module's docstring."""
    return max(1, min(thread_limits().values()))


def thread_limits() -> dict[str, int]:
    """Returns the limits of `default_threads`: name → number of threads."""
    limits = {"physical cores": physical_cores()}
    quota = cpu_quota()
    if quota is not None:
        # Rounded down: a thread with a fraction of a core would delay the whole team.
        limits["CPU quota"] = max(1, math.floor(quota))
    torch_threads = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if torch_threads is not None:
        limits["torch.get_num_threads()"] = torch_threads()
    elif (openmp_threads := _openmp_threads()) is not None:
        limits["OMP_NUM_THREADS"] = openmp_threads
    return limits


def validate_threads(threads: Any) -> int:
    """Returns the number of threads as an int.

    The maximum is four per processor of the machine, and at least 64.

    Raises:
        ConfigError: it is not an integer, below 1 or above the maximum.
    """
    maximum = min(max(64, 4 * (os.cpu_count() or 1)), _MAX_ENGINE_THREADS)
    try:
        number = 0 if isinstance(threads, bool) else operator.index(threads)
    except TypeError:
        number = 0
    if not 1 <= number <= maximum:
        raise ConfigError(f"threads={threads!r}: expected an integer from 1 to {maximum} on this machine.")
    return number


def _openmp_threads() -> int | None:
    """Returns the first number of `OMP_NUM_THREADS`, or `None` if it is not valid."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    is_number = first.isascii() and first.isdigit() and len(first) < 10
    return int(first) or None if is_number else None


def physical_cores(root: Path = _CPUS) -> int:
    """Returns the number of cores in the affinity mask; a processor with unknown siblings counts as a core."""
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = affinity(0) if affinity else range(os.cpu_count() or 1)
    return len({_siblings(root / f"cpu{cpu}") or f"cpu{cpu}" for cpu in allowed}) or 1


def _siblings(cpu: Path) -> str:
    try:
        return (cpu / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return ""


def cpu_quota(root: Path = _CGROUPS) -> float | None:
    """Returns the CPU quota of the control group (cgroup v2 or v1) in cores, or `None` if it is unlimited."""
    quotas = [quota for directory in _own_groups(root) if (quota := _quota_of(directory)) is not None]
    return min(quotas, default=None)


def _own_groups(root: Path) -> list[Path]:
    """Returns the directories of this process's control groups and their ancestors."""
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
