"""Coverage of the guarantees of `itrex-sweet calibrate`, and the layers that they cost, over many calibrations.

    python benchmarks/decoupled/run.py --tasks sst2 qnli ag_news --variants softened   # trains the models
    python benchmarks/guarantee.py --tasks sst2 qnli ag_news

Uses the logits that `decoupled/run.py` stores, of rows that the models were not trained on: the population of a task.
Calibration rows are drawn from it with replacement, so that the true loss of a policy is its mean over the population.
Every draw is calibrated by every method on the same rows: by betting with a third of the rows for tuning, and by the
exact test with several shares. Several draws of testing rows share the tuning rows, whose candidates take longest.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from decoupled.artifacts import FOLDER
from record import TRAINED, provenance, read_task, write_result

from itrex_sweet import criteria
from itrex_sweet.calibration.bounds import betting_p_value
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.calibration.guarantees import MeanLossGuarantee
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.calibration.temperature import fit_temperature
from itrex_sweet.policy import Policy

EPSILONS, DELTA = (0.005, 0.01, 0.02), 0.05
THIRD = 1 / 3
_limits: dict[tuple[int, float, int], list[int]] = {}  # lost rows that are certified, and that are not
CHOSEN, LAYERS = "softened", (1, 2, 4, 6)  # the variant of decoupled/variants.py that is reported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news", "mnli", "cola", "rte"])
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 1000], help="calibration rows of a draw")
    parser.add_argument("--shares", type=float, nargs="+", default=[THIRD], help="of the rows that tune, exact test")
    parser.add_argument("--draws", type=int, nargs="+", default=[500, 500], help="for each number of rows")
    parser.add_argument("--tests", type=int, default=25, help="draws of testing rows per draw of tuning rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the runs")
    parser.add_argument("--name", default="guarantee", help="of the result")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("rows", "shares", "draws", "tests", "seed")}
    result: dict[str, Any] = {**provenance(), "settings": {**settings, "delta": DELTA}, "tasks": {}}
    for task in options.tasks:
        logits, labels = population(task, options.folder)
        layers = np.array(LAYERS, dtype=np.float64)
        correct = logits.argmax(-1) == labels[:, None]
        entry = result["tasks"][task] = {
            "population": len(labels),
            "full_layers": float(layers[-1]),
            "accuracy_per_exit": np.round(100 * correct.mean(0), 2).tolist(),
            "cells": [],
        }
        for rows, draws in zip(options.rows, options.draws, strict=True):
            entry["cells"] += measured(logits, labels, layers, rows, draws, options)
            for cell in entry["cells"][-len(EPSILONS) :]:
                print(task, cell, flush=True)
            path = write_result(options.name, result)
    print(path)


def measured(
    logits: np.ndarray, labels: np.ndarray, layers: np.ndarray, rows: int, draws: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measures the share of draws whose policy exceeds ε, and the layers that it runs, for every ε and method."""
    predictions = logits.argmax(-1)
    correct = predictions == labels[:, None]
    losses = correct[:, -1:].astype(np.int8) - correct.astype(np.int8)
    random = np.random.default_rng(options.seed)
    outcomes: dict[tuple[float, str], list[tuple[float, float]]] = {}
    for _ in range(-(-draws // options.tests)):
        drawn = random.integers(0, len(labels), rows)
        for share in sorted({THIRD, *options.shares}):
            tuning = drawn[: round(rows * share)]
            policy = with_temperatures(logits[tuning], labels[tuning])
            confidences = criteria.confidence_at_every_exit(policy, logits)
            costs = RowCosts.from_layers(layers, len(tuning))
            candidates = candidate_policies(policy, confidences[tuning], losses[tuning], costs, epsilon=max(EPSILONS))
            leaving = np.stack([criteria.leaving_exit(each, confidences) for each in candidates], axis=1)
            of_candidates = np.take_along_axis(losses, leaving, axis=1)  # (rows, candidates)
            true = list(zip(of_candidates.mean(0).tolist(), layers[leaving].mean(0).tolist(), strict=True))
            for epsilon in EPSILONS:
                least = min(run for loss, run in true if loss <= epsilon)
                outcomes.setdefault((epsilon, f"oracle {share:.3f}"), []).append((0.0, least))
            for _ in range(options.tests):
                seen = of_candidates[random.integers(0, len(labels), rows - len(tuning))]
                counts = zip((seen > 0).sum(0).tolist(), (seen < 0).sum(0).tolist(), strict=True)
                counts = [LossCounts(lost, won, len(seen)) for lost, won in counts]
                for epsilon in EPSILONS:
                    tests = {f"exact {share:.3f}": exact}
                    if share == THIRD:
                        tests |= {"betting": betting, "plug-in": plug_in}
                    for name, is_certified in tests.items():
                        last = last_certified(counts, functools.partial(is_certified, epsilon=epsilon))
                        outcomes.setdefault((epsilon, name), []).append(true[last])
    cells = []
    for epsilon in EPSILONS:
        cell: dict[str, Any] = {"rows": rows, "epsilon": epsilon}
        for (of_epsilon, name), values in outcomes.items():
            if of_epsilon == epsilon:
                cell[name] = summary(*map(np.array, zip(*values, strict=True)), epsilon, layers[-1])
        cells.append(cell)
    return cells


def summary(loss: np.ndarray, run: np.ndarray, epsilon: float, full: float) -> dict[str, Any]:
    """Returns the share of draws that exceed ε, with its interval, and the layers that the policies run."""
    exceeded = float((loss > epsilon).mean())
    return {
        "draws": len(loss),
        "exceeded": round(exceeded, 4),
        "interval": wilson(exceeded, len(loss)),
        "layers": round(float(run.mean()), 3),
        "beyond_full_depth": round(float((run < full).mean()), 3),
        "mean_loss": round(float(loss.mean()), 5),
    }


def last_certified(seen: list[LossCounts], is_certified: Callable[[LossCounts], bool]) -> int:
    """Returns the index of the last certified candidate; the first is the full model, which loses nothing."""
    for index, counts in enumerate(seen[1:]):
        if not is_certified(counts):
            return index
    return len(seen) - 1


def exact(counts: LossCounts, epsilon: float) -> bool:
    """Returns whether the exact test certifies; for fixed discordant rows, its p-value increases with lost rows."""
    discordant = counts.lost + counts.won
    limits = _limits.setdefault((counts.rows, epsilon, discordant), [-1, discordant + 1])
    if limits[0] < counts.lost < limits[1]:
        is_certified = MeanLossGuarantee(epsilon, DELTA, of_accuracy=True).p_value_of(counts) <= DELTA
        limits[0 if is_certified else 1] = counts.lost
    return counts.lost <= limits[0]


@functools.cache
def betting(counts: LossCounts, epsilon: float) -> bool:
    return betting_p_value(counts, epsilon) <= DELTA


def plug_in(counts: LossCounts, epsilon: float) -> bool:
    return counts.mean_loss <= epsilon


def population(task: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits (rows, exits, labels) and labels of a task's rows, cached beside the logits of the run."""
    cache = folder / f"{task}-0" / f"population-{CHOSEN}.npz"
    if not cache.is_file():
        from paper.run import training_rows

        stored = np.load(folder / f"{task}-0" / f"{CHOSEN}.npz")
        labels = [*training_rows(task, TRAINED)[1][1], *read_task(task, "validation")[1]]
        np.savez(cache, logits=np.concatenate([stored["pool"], stored["validation"]]), labels=np.asarray(labels))
    stored = np.load(cache)
    return stored["logits"], stored["labels"]


def with_temperatures(logits: np.ndarray, labels: np.ndarray) -> Policy:
    temperatures = tuple(fit_temperature(logits[:, place], labels) for place in range(logits.shape[1]))
    return Policy((1.0,) * (len(temperatures) - 1), temperatures)


def of_policy(losses: np.ndarray, layers: np.ndarray, leaving: np.ndarray) -> tuple[float, float]:
    """Returns the true mean loss and mean layers of a policy."""
    return float(losses[np.arange(len(losses)), leaving].mean()), float(layers[leaving].mean())


def wilson(share: float, count: int, z: float = 1.96) -> list[float]:
    """Returns the 95 % confidence interval of a proportion (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return [round(max(0.0, middle - half), 4), round(middle + half, 4)]


if __name__ == "__main__":
    main()
