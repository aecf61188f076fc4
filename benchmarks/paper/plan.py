"""Which runs the paper's figures take, which of them are there, and how long the others will."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import RESULTS, RUNS

TASKS = ("cola", "rte", "sst2", "mnli", "qnli", "ag_news")
METHODS = ("sweet", "paper", "joint", "multi-model")
SEEDS = (0, 1, 2)
LEARNING_RATES = (5e-5, 1e-4, 2e-4)
CHOSEN_ON_SEED = 0

FOUND = RESULTS / "paper"
KEPT = RUNS / "paper"  # trained models and logits

# Minutes of `sweet` on 6000 rows for three epochs, one core of AMD Zen 4 in bfloat16; what is done corrects them.
_MINUTES = {"cola": 5, "rte": 9, "sst2": 6, "mnli": 17, "qnli": 19, "ag_news": 19}
_TIMES = {"multi-model": 2.2}


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        learning_rate: tried on rows split off the training pool; `None` for a run that is reported, with the rate that
            was best there.
    """

    task: str
    method: str
    seed: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        tried = "" if self.learning_rate is None else f"-lr{self.learning_rate:g}"
        return f"{self.task}-{self.method}-{self.seed}{tried}"

    @property
    def path(self) -> Path:
        """Of its result."""
        return FOUND / f"{self.name}.json"

    @property
    def folder(self) -> Path:
        """Of its model and logits."""
        return KEPT / self.name

    def read(self) -> dict[str, Any] | None:
        """Its result, if it was run."""
        return json.loads(self.path.read_text()) if self.path.is_file() else None


def every_run(
    tasks: tuple[str, ...], methods: tuple[str, ...], seeds: tuple[int, ...], learning_rates: tuple[float, ...]
) -> list[Run]:
    """All runs: for each task and method first the learning rates, if there is a choice, then the seeds."""
    runs = []
    for task in tasks:
        for method in methods:
            if len(learning_rates) > 1:
                runs += [Run(task, method, CHOSEN_ON_SEED, rate) for rate in learning_rates]
            runs += [Run(task, method, seed) for seed in seeds]
    return runs


def best_learning_rate(task: str, method: str, learning_rates: tuple[float, ...]) -> float:
    """The rate whose mean score over the exits was highest on rows split off the training pool."""
    if len(learning_rates) == 1:
        return learning_rates[0]
    tried = {rate: Run(task, method, CHOSEN_ON_SEED, rate).read() for rate in learning_rates}
    return max(tried, key=lambda rate: sum(tried[rate]["score"]))


def minutes_left(runs: list[Run]) -> float:
    """Of the runs that are not there yet, by those that are: seconds against what was expected."""
    done = [(run, found) for run in runs if (found := run.read())]
    ratio = sum(found["seconds"] / 60 for _, found in done) / sum(_expected(run) for run, _ in done) if done else 1.0
    return ratio * sum(_expected(run) for run in runs if not run.path.is_file())


def _expected(run: Run) -> float:
    return _MINUTES[run.task] * _TIMES.get(run.method, 1.0)
