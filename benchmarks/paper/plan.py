"""The runs of the paper's figures: parameters, available results, and expected duration."""

from __future__ import annotations

import fnmatch
import itertools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fine_tuning import METHODS as KNOWN
from fine_tuning import MULTI_MODEL, RECIPE
from record import RUNS

from paper import store

TASKS = ("cola", "rte", "sst2", "mnli", "qnli", "ag_news")
METHODS = (MULTI_MODEL, "sweet", "joint", "paper")
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
    """Pretrained weights, and the paper's exits for them.

    Args:
        weights: a hub id; `None` for the MiniLM weights that the demo uses.
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

# Minutes of `sweet` with MiniLM, 6000 rows, two epochs, on one core of AMD Zen 4 in bfloat16, scoring included. The
# estimate is corrected by completed runs.
_MINUTES = {"cola": 2.5, "rte": 2.5, "sst2": 2.5, "mnli": 7, "qnli": 7.5, "ag_news": 8}
_TIMES = {MULTI_MODEL: 2.2}
_SIZE = {"minilm": 1.0, "bert-base": 8.0, "bert-large": 28.0, "deberta-base": 14.0, "deberta-large": 50.0}


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: str
    method: str
    seed: int
    learning_rate: float
    model: str = "minilm"
    epochs: float = EPOCHS

    @property
    def name(self) -> str:
        """Name of its result and folders."""
        model = "" if self.model == "minilm" else f"{self.model}-"
        longer = "" if self.epochs == EPOCHS else f"-{self.epochs:g}epochs"
        return f"{model}{self.task}-{self.method}-{self.seed}-{self.learning_rate:g}{longer}"

    @property
    def folder(self) -> Path:
        """Folder of its model and logits."""
        return RUNS / "paper" / self.name

    @property
    def full_depth_model(self) -> Path:
        """Folder of the full-depth model of Multi-Model, the plain fine-tuning."""
        return self.folder / f"exit_{MODELS[self.model].exits[-1]}"

    @property
    def minutes(self) -> float:
        """Expected minutes on one core."""
        return _MINUTES[self.task] * _TIMES.get(self.method, 1.0) * _SIZE[self.model] * self.epochs / EPOCHS

    def read(self) -> dict[str, Any] | None:
        """Returns its result, or `None` if it has not run."""
        return store.read().get(self.name)


@dataclass(frozen=True)
class Plan:
    """Requested runs: the first seed with every learning rate, the others with the best one."""

    tasks: tuple[str, ...] = TASKS
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = SEEDS
    learning_rates: tuple[float, ...] = LEARNING_RATES
    model: str = "minilm"
    epochs: float = EPOCHS

    def missing(self) -> Iterable[Run]:
        """Yields the runs without a result. Those of later seeds depend on the results of the first. A run that starts
        from a plain fine-tuning is preceded by that run if its model is missing.
        """
        for run in self._every():
            if run.read() is None:
                plain = plain_of(run)
                if plain is not None and not plain.full_depth_model.is_dir():
                    yield plain
                yield run

    def minutes_left(self) -> tuple[int, float]:
        """Returns the number of missing runs and their expected minutes on one core, from the completed runs."""
        completed = [(run, result) for run in self._every() if (result := run.read())]
        minutes = sum(result["seconds"] / 60 for _, result in completed)
        correction = minutes / sum(run.minutes for run, _ in completed) if completed else 1.0
        missing = set(self.missing())
        return len(missing), correction * sum(run.minutes for run in missing)

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
    """Returns learning rate → mean score of the exits on held-out rows of the training pool, with the first seed.

    Args:
        like: a run that differs in learning rate and seed only.
        learning_rates: candidates; `None` for all with a result.
    """
    first = replace(like, seed=CHOSEN_ON_SEED)
    if learning_rates is None:
        pattern = f"*{first.task}-{first.method}-{CHOSEN_ON_SEED}-*"
        stored = [result for name, result in store.read().items() if fnmatch.fnmatchcase(name, pattern)]
        learning_rates = sorted({result["settings"]["learning_rate"] for result in stored})
    results = {rate: replace(first, learning_rate=rate).read() for rate in learning_rates}
    return {rate: statistics.fmean(result["pool"]["score"]) for rate, result in results.items() if result}


def best_learning_rate(like: Run, learning_rates: Iterable[float] | None = None) -> float | None:
    """Returns the best of `by_learning_rate`, or `None` without results."""
    scores = by_learning_rate(like, learning_rates)
    return max(scores, key=scores.get, default=None)


def reported(task: str, method: str, seed: int, model: str = "minilm", epochs: float = EPOCHS) -> Run | None:
    """Returns the reported run, with the best learning rate; `None` without a result."""
    run = Run(task, method, seed, 0.0, model, epochs)
    rate = best_learning_rate(run)
    run = None if rate is None else replace(run, learning_rate=rate)
    return run if run is not None and run.read() else None


def plain_of(run: Run) -> Run | None:
    """Returns the Multi-Model run whose full-depth model is the plain fine-tuning that a run starts from, with the same
    learning rate; `None` for methods without one.
    """
    method = KNOWN[run.method]
    return replace(run, method=MULTI_MODEL) if method is not None and method.starts_from_plain else None


EVERY_METHOD = tuple(KNOWN)
