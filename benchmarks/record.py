"""What every result records beside its numbers, and the two ways in which a measurement can be worthless."""

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
RUNS = ROOT / "benchmarks" / "runs"  # trained models; not kept in the repository

PACKAGES = ("torch", "transformers", "numpy", "safetensors", "accelerate")
BUSY_SHARE = 0.05  # of all cores, above which other work spoils a timing


def provenance() -> dict[str, Any]:
    """Date, commit, machine and versions. A commit with uncommitted changes is marked `+changes`."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "itrex_sweet", "benchmarks/*.py")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit + ("+changes" if changed else ""),
        "machine": {"cpu": _cpu_model(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Writes `benchmarks/results/NAME.json`."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def read_task(task: str, split: str, limit: int | None = None) -> tuple[list[Any], list[int]]:
    """Texts (or pairs) and labels of a task's split, in file order.

    Raises:
        SystemExit: the data folder is not there.
    """
    path = DATA / task / f"{split}.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{task}/{split}.jsonl.gz is not in {DATA}: this benchmark needs the research data.")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream][:limit]
    texts = [row["sentence"] if "sentence" in row else (row["sentence1"], row["sentence2"]) for row in rows]
    return texts, [row["label"] for row in rows]


# Before it lie the training rows, and the 700 that quantization observed and judged.
FIRST_HELD_OUT_ROW = 6700


def held_out_rows(task: str, count: int) -> tuple[list[Any], list[int]]:
    """Texts and labels of the first rows that were neither trained on nor used to quantize nor are reported on."""
    texts, labels = read_task(task, "train_20k")
    rows = slice(FIRST_HELD_OUT_ROW, FIRST_HELD_OUT_ROW + count)
    return texts[rows], labels[rows]


def foot(result: dict, more: str = "") -> str:
    """Machine, versions and commit of a result, in one line; `more` comes after the versions."""
    machine, versions = result["machine"], result["versions"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, torch {versions['torch']}, transformers "
        f"{versions['transformers']}{more}; commit {result['commit'][:10]}."
    )


class OwnSeconds(list):
    """What a contender returns that measures itself: seconds of each part of its work, in floats."""


def measure(
    contenders: dict[str, Callable[[], Any]], repeats: int, count: int, pause: float = 0.0
) -> dict[str, dict[str, float]]:
    """Milliseconds per row over interleaved repeats after a warm-up: median, quartiles, least and most.

    A contender that returns `OwnSeconds` is timed by them, not by the clock here; with as many of them as rows, the
    median and the 95th percentile of single rows come too (`p50`, `p95`).

    Args:
        contenders: name → what to time.
        repeats: timed ones.
        count: rows that each of them runs.
        pause: seconds before each, in which threads of the one before it stop spinning.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    single: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            time.sleep(pause)
            start = time.perf_counter()
            own = run()
            seconds = time.perf_counter() - start
            if repeat > 0:
                if isinstance(own, OwnSeconds):
                    seconds = sum(own)
                    single[name] += [1000 * value for value in own] if len(own) == count > 1 else []
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
    """The folder of the real pretrained weights.

    Raises:
        SystemExit: the package that carries them is not installed.
    """
    from itrex_sweet.demo.weights import pretrained_directory

    return pretrained_directory()


def refuse_busy_machine(seconds: float = 1.0) -> None:
    """Looks at the processors for a moment; a timing beside other work means nothing.

    Raises:
        SystemExit: other processes take more than `BUSY_SHARE` of the machine.
    """
    before = _busy_and_total()
    time.sleep(seconds)
    busy, total = (after - start for after, start in zip(_busy_and_total(), before, strict=True))
    if busy > BUSY_SHARE * total:
        raise SystemExit(f"the machine is {busy / total:.0%} busy with other work; time it when it is idle.")


def _busy_and_total() -> tuple[int, int]:
    ticks = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
