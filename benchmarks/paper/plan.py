"""Which runs the paper's figures take, which of them are there, and how long the others will."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fine_tuning import METHODS as KNOWN
from fine_tuning import MULTI_MODEL
from record import RESULTS, RUNS

TASKS = ("cola", "rte", "sst2", "mnli", "qnli", "ag_news")
METHODS = (MULTI_MODEL, "sweet", "joint", "paper")
RECIPE = "after-cut-first"
DECOUPLED, LABELS_ALONE = "decoupled", "decoupled, labels alone"  # of benchmarks/decoupled
NAMES = {
    "sweet": "SWEET",
    "paper": "SWEET as published",
    "joint": "Early-Exit",
    MULTI_MODEL: "Multi-Model",
    RECIPE: "recipe",
    DECOUPLED: "decoupled",
    LABELS_ALONE: "decoupled, labels alone",
}
METRIC = {"cola": "matthews"}  # of the others: accuracy
SEEDS = (0, 1, 2)
LEARNING_RATES = (5e-5, 1e-4, 2e-4)
EPOCHS = 2
CHOSEN_ON_SEED = 0


@dataclass(frozen=True)
class Model:
    """Pretrained weights, and where the paper puts exits on them.

    Args:
        weights: a hub id; `None` for the real weights in the package that the demo uses.
        exits: counts of layers.
    """

    weights: str | None
    exits: tuple[int, ...]


MODELS = {
    "minilm": Model(None, (1, 2, 4, 6)),
    "bert-base": Model("google-bert/bert-base-uncased", (1, 4, 6, 12)),
    "bert-large": Model("google-bert/bert-large-uncased", (1, 6, 12, 24)),
    "deberta-base": Model("microsoft/deberta-v3-base", (1, 4, 6, 12)),
    "deberta-large": Model("microsoft/deberta-v3-large", (1, 6, 12, 24)),
}

# Minutes of `sweet` on 6000 rows for two epochs, one core of AMD Zen 4 in bfloat16, scoring included, MiniLM; what is
# done corrects them.
_MINUTES = {"cola": 2.5, "rte": 2.5, "sst2": 2.5, "mnli": 7, "qnli": 7.5, "ag_news": 8}
_TIMES = {MULTI_MODEL: 2.2}
_SIZE = {"minilm": 1.0, "bert-base": 8.0, "bert-large": 28.0, "deberta-base": 14.0, "deberta-large": 50.0}


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    method: str
    seed: int
    learning_rate: float
    model: str = "minilm"
    epochs: float = EPOCHS

    @property
    def name(self) -> str:
        """Of its file."""
        model = "" if self.model == "minilm" else f"{self.model}-"
        longer = "" if self.epochs == EPOCHS else f"-{self.epochs:g}epochs"
        return f"{model}{self.task}-{self.method}-{self.seed}-{self.learning_rate:g}{longer}"

    @property
    def path(self) -> Path:
        """Of its result."""
        return RESULTS / "paper" / f"{self.name}.json"

    @property
    def folder(self) -> Path:
        """Of its model and logits."""
        return RUNS / "paper" / self.name

    @property
    def full_depth_model(self) -> Path:
        """Of Multi-Model: the plain fine-tuning's folder."""
        return self.folder / f"exit_{MODELS[self.model].exits[-1]}"

    @property
    def minutes(self) -> float:
        """Expected, on one core."""
        return _MINUTES[self.task] * _TIMES.get(self.method, 1.0) * _SIZE[self.model] * self.epochs / EPOCHS

    def read(self) -> dict[str, Any] | None:
        """Its result, if it was run."""
        return json.loads(self.path.read_text()) if self.path.is_file() else None


@dataclass(frozen=True)
class Plan:
    """Runs asked for: with the first seed every learning rate, with the others the one that was best there."""

    tasks: tuple[str, ...] = TASKS
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = SEEDS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    model: str = "minilm"
    epochs: float = EPOCHS

    def missing(self) -> Iterable[Run]:
        """What to run next; what it says of a later seed depends on what was run until then. Before a run that begins
        from a plain fine-tuning comes that one, if its model is not there."""
        for run in self._every():
            if not run.path.is_file():
                plain = plain_of(run)
                if plain is not None and not plain.full_depth_model.is_dir():
                    yield plain
                yield run

    def minutes_left(self) -> tuple[int, float]:
        """How many runs are missing, and minutes for them on one core, by the pace of those that are there."""
        done = [(run, found) for run in self._every() if (found := run.read())]
        pace = sum(found["seconds"] / 60 for _, found in done) / sum(run.minutes for run, _ in done) if done else 1.0
        missing = set(self.missing())
        return len(missing), pace * sum(run.minutes for run in missing)

    def _every(self) -> Iterable[Run]:
        for seed, task, method in itertools.product(self.seeds, self.tasks, self.methods):
            yield from self._runs(task, method, seed)

    def _runs(self, task: str, method: str, seed: int) -> list[Run]:
        first = Run(task, method, CHOSEN_ON_SEED, self.learning_rates[0], self.model, self.epochs)
        rates = self.learning_rates
        if seed != CHOSEN_ON_SEED:
            best = best_learning_rate(first, rates)
            rates = (rates[len(rates) // 2] if best is None else best,)
        return [replace(first, seed=seed, learning_rate=rate) for rate in rates]


def by_learning_rate(like: Run, learning_rates: Iterable[float] | None = None) -> dict[float, float]:
    """Learning rate → mean score of the exits on rows of the pool that were not trained on, with the first seed; of the
    rates that were tried.

    Args:
        like: a run that differs from those in rate and seed alone.
        learning_rates: to choose from; `None` for all.
    """
    first = replace(like, seed=CHOSEN_ON_SEED)
    if learning_rates is None:
        every = (RESULTS / "paper").glob(f"*{first.task}-{first.method}-{CHOSEN_ON_SEED}-*.json")
        learning_rates = sorted({json.loads(path.read_text())["settings"]["learning_rate"] for path in every})
    tried = {rate: replace(first, learning_rate=rate).read() for rate in learning_rates}
    return {rate: statistics.fmean(found["pool"]["score"]) for rate, found in tried.items() if found}


def best_learning_rate(like: Run, learning_rates: Iterable[float] | None = None) -> float | None:
    """The best of `by_learning_rate`; `None` if none was tried."""
    scores = by_learning_rate(like, learning_rates)
    return max(scores, key=scores.get, default=None)


def reported(task: str, method: str, seed: int, model: str = "minilm", epochs: float = EPOCHS) -> Run | None:
    """The run that the figures show: with the best learning rate; `None` if it is not there."""
    run = Run(task, method, seed, 0.0, model, epochs)
    rate = best_learning_rate(run)
    run = None if rate is None else replace(run, learning_rate=rate)
    return run if run is not None and run.path.is_file() else None


def plain_of(run: Run) -> Run | None:
    """Multi-Model's run whose full-depth model is the plain fine-tuning that another begins from or is taught by, with
    the same learning rate; `None` for a method without one."""
    how = KNOWN[run.method]
    return replace(run, method=MULTI_MODEL) if how is not None and how.needs_plain else None


EVERY_METHOD = tuple(KNOWN)
