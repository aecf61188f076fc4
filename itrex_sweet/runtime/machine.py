"""Describes the machine of a measurement: processor, instruction sets, cores and threads. Imports no torch."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from itrex_sweet.runtime.native.cores import cpu_quota as _cpu_quota

# Named as the Linux kernel names them; it lists only those that the operating system lets a process use.
INSTRUCTION_SETS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)


@dataclass(frozen=True)
class Machine:
    """Hardware and thread settings of a measurement.

    Args:
        processor: its model name.
        instruction_sets: those of `INSTRUCTION_SETS` that it has.
        cores: that the operating system has.
        usable_cores: that this process may use, by affinity.
        cpu_quota: cores' worth of time that the control group grants; `None` without a limit.
        threads: number of torch's threads; `None` if torch is not imported.
        system: operating system and architecture.
    """

    processor: str
    instruction_sets: tuple[str, ...]
    cores: int
    usable_cores: int
    cpu_quota: float | None
    threads: int | None
    system: str

    @classmethod
    def here(cls) -> Machine:
        """Describes this machine for this process."""
        processor, flags = _processor()
        torch = sys.modules.get("torch")
        cores = os.cpu_count() or 1
        affinity = getattr(os, "sched_getaffinity", None)
        return cls(
            processor=processor,
            instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
            cores=cores,
            usable_cores=len(affinity(0)) if affinity else cores,
            cpu_quota=_cpu_quota(),
            threads=torch.get_num_threads() if torch is not None else None,
            system=f"{platform.system()} {platform.machine()}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the facts in plain JSON types."""
        return {**asdict(self), "instruction_sets": list(self.instruction_sets)}

    def describe(self) -> str:
        """Describes the machine in one line."""
        threads = "" if self.threads is None else f", {self.threads} torch thread{'s' if self.threads != 1 else ''}"
        sets = ", ".join(self.instruction_sets) or "no vector extension known here"
        return f"{self.processor}, {self.usable_cores} of {self.cores} cores{threads} ({sets})"


def _processor() -> tuple[str, frozenset[str]]:
    """Reads the processor's model name and instruction-set flags."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name") or platform.processor() or platform.machine() or "unknown"
    return name, frozenset(facts.get("flags", "").split())
