"""Provenance of results, the research data, and interleaved timing on an idle machine."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
RUNS = ROOT / "benchmarks" / "runs"  # trained models, ignored by git

PACKAGES = ("torch", "transformers", "numpy", "safetensors", "accelerate")
BUSY_SHARE = 0.05  # maximum load of other processes, of all cores


def provenance() -> dict[str, Any]:
    """Returns date, commit, machine and versions. `+changes` marks a commit with uncommitted changes.

    Family and model of the processor tell generations with one name apart: 25 and 17 are Zen 4, 26 is Zen 5.
    """
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "itrex_sweet", "benchmarks/*.py")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit + ("+changes" if changed else ""),
        "machine": {
            "cpu": _cpu_model(),
            "family": _cpu_field("cpu family"),
            "model": _cpu_field("model"),
            "cores": os.cpu_count(),
            "system": platform.system(),
            **({"priority": "real-time"} if _has_real_time_priority() else {}),
        },
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def read_task(task: str, split: str, limit: int | None = None) -> tuple[list[Any], list[int]]:
    """Reads the texts (or pairs of texts) and labels of a split, in file order.

    Raises:
        SystemExit: the file does not exist.
    """
    path = DATA / task / f"{split}.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{task}/{split}.jsonl.gz is not in {DATA}: this benchmark needs the research data.")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream][:limit]
    texts = [row["sentence"] if "sentence" in row else (row["sentence1"], row["sentence2"]) for row in rows]
    return texts, [row["label"] for row in rows]


# Of `train_20k`: the first rows train, the following ones up to the held-out rows quantize.
TRAINED, FIRST_HELD_OUT_ROW = 6000, 6700


def held_out_rows(task: str, count: int) -> tuple[list[Any], list[int]]:
    """Reads texts and labels of rows that were used for neither training, quantization nor reporting."""
    texts, labels = read_task(task, "train_20k")
    rows = slice(FIRST_HELD_OUT_ROW, FIRST_HELD_OUT_ROW + count)
    return texts[rows], labels[rows]


def footer(result: dict, more: str = "") -> str:
    """Returns a line with machine, versions, date and commit of a result; `more` follows the versions."""
    machine, versions = result["machine"], result["versions"]
    generation = f" (family {machine['family']}, model {machine['model']})" if machine.get("family") else ""
    more += ", at real-time priority beside other work" if machine.get("priority") == "real-time" else ""
    more += f", beside {machine['load']}" if "load" in machine else ""
    changes = " with uncommitted changes" if result["commit"].endswith("+changes") else ""
    return (
        f"{machine['cpu']}{generation}, {machine['cores']} cores, torch {versions['torch']}, transformers "
        f"{versions['transformers']}{more}; {result['date'][:10]}, commit {result['commit'][:10]}{changes}."
    )


class MeasuredSeconds(list):
    """Seconds of each part of a run, returned by a contender that measures its own time."""


def measure(
    contenders: dict[str, Callable[[], Any]], repeats: int, count: int, pause: float = 0.0
) -> dict[str, dict[str, float]]:
    """Measures milliseconds per row over interleaved repeats after a warm-up: median, quartiles, minimum and maximum.

    A contender that returns `MeasuredSeconds` is timed by these. If it returns one value per row, the result also has
    the median and the 95th percentile of single rows (`p50`, `p95`).

    Args:
        contenders: name → function to time.
        repeats: number of timed repeats.
        count: rows per run.
        pause: seconds before each run, in which threads of the previous contender stop spinning.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    single: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            time.sleep(pause)
            start = time.perf_counter()
            measured = run()
            seconds = time.perf_counter() - start
            if repeat > 0:
                if isinstance(measured, MeasuredSeconds):
                    seconds = sum(measured)
                    single[name] += [1000 * value for value in measured] if len(measured) == count > 1 else []
                times[name].append(1000 * seconds / count)
    return {name: _summary(values, single[name]) for name, values in times.items()}


def _summary(values: list[float], single: list[float]) -> dict[str, Any]:
    quartiles = [round(float(value), 4) for value in np.percentile(values, (25, 75))]
    summary = {
        "median": round(float(np.median(values)), 4),
        "quartiles": quartiles,
        "least": round(min(values), 4),
        "most": round(max(values), 4),
    }
    if single:
        summary["p50"], summary["p95"] = (round(float(value), 4) for value in np.percentile(single, (50, 95)))
    return summary


def pretrained() -> Path:
    """Returns the folder of the pretrained MiniLM weights.

    Raises:
        SystemExit: the package that contains them is not installed.
    """
    from itrex_sweet.demo.weights import pretrained_directory

    return pretrained_directory()


def check_idle_machine(seconds: float = 1.0) -> None:
    """Measures the load of the processors for some seconds, unless this process has real-time priority (`chrt -f 50`):
    then other processes hardly run beside it.

    Raises:
        SystemExit: other processes use more than `BUSY_SHARE` of the processors.
    """
    if _has_real_time_priority():
        return
    before = _busy_and_total()
    time.sleep(seconds)
    busy, total = (after - start for after, start in zip(_busy_and_total(), before, strict=True))
    if busy > BUSY_SHARE * total:
        raise SystemExit(f"the machine is {busy / total:.0%} busy with other work; time it when it is idle.")


def _busy_and_total() -> tuple[int, int]:
    ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _has_real_time_priority() -> bool:
    return os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor()


def _cpu_field(name: str) -> str | None:
    """Returns a field of the first processor in /proc/cpuinfo, or `None`."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        field, _, value = line.partition(":")
        if field.strip() == name:
            return value.strip()
    return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
