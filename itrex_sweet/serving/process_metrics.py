"""Memory, processor time and open files of this process, by the names of Prometheus' client libraries."""

from __future__ import annotations

import os
from pathlib import Path

from itrex_sweet.serving.exposition import Exposition

_PROCESS = Path("/proc/self")


def add_process_metrics(document: Exposition) -> None:
    """Adds the metrics of this process; none where the system has no `/proc`."""
    try:
        fields = (_PROCESS / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        files = len(os.listdir(_PROCESS / "fd"))
    except (OSError, StopIteration):
        return
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    # Fields of proc(5) from the third on: utime and stime are the 14th and 15th, then starttime, vsize and rss.
    user, system, start, virtual, resident = (int(fields[number - 3]) for number in (14, 15, 22, 23, 24))
    seconds = (user + system) / ticks
    document.counter("process_cpu_seconds_total", "Processor time in seconds.", [({}, seconds)])
    document.gauge("process_resident_memory_bytes", "Resident memory in bytes.", [({}, resident * page)])
    document.gauge("process_virtual_memory_bytes", "Virtual memory in bytes.", [({}, virtual)])
    document.gauge("process_open_fds", "Open file descriptors.", [({}, files)])
    started = int(boot.split()[1]) + start / ticks
    document.gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.", [({}, started)])
