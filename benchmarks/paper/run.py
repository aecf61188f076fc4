"""Trains and scores the missing runs of the paper's figures; `make paper` calls it.

    python benchmarks/paper/run.py                                     # everything; prints the expected duration first
    python benchmarks/paper/run.py --tasks cola --seeds 0 --learning-rates 1e-4
    python benchmarks/paper/run.py --model bert-base --tasks sst2      # downloads the weights from the hub
    python benchmarks/paper/report.py                                  # tables and pictures into docs

Uses at most 6000 training rows, two epochs, batches of 16 and the exits of the paper. Every run is scored on held-out
rows of the training pool, which select learning rates, and on validation rows, which are only reported. A run's model
and logits are stored in `benchmarks/runs/paper`, its scores in `benchmarks/results/paper.json`. The two-stage recipe
starts from the full-depth model of the Multi-Model run with the same task, seed and learning rate, which runs first if
it is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from fine_tuning import MAX_LENGTH, METHODS, Settings, fine_tune
from record import TRAINED, provenance, read_task

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import Artifact
from itrex_sweet.evaluation.curve import thresholds_between
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.metrics import METRICS
from itrex_sweet.policy import Policy
from itrex_sweet.training import GradientConflictCallback
from paper import plan, store

POOL = 2000  # rows after those that train
CONFLICT_EVERY = 50  # forwards
POINTS = 40  # thresholds of a curve
CRITERIA = ("max_probability", "entropy", "learned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--methods", nargs="+", choices=plan.EVERY_METHOD, default=plan.METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=plan.SEEDS)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=plan.LEARNING_RATES)
    parser.add_argument("--model", choices=list(plan.MODELS), default="minilm")
    parser.add_argument("--weights", help="a local folder with the model's weights, instead of the hub's")
    parser.add_argument("--rows", type=int, default=TRAINED, help="training rows")
    parser.add_argument("--epochs", type=float, default=plan.EPOCHS)
    parser.add_argument("--float32", action="store_true", help="instead of bfloat16 autocast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    requested = plan.Plan(
        tuple(options.tasks),
        tuple(options.methods),
        tuple(options.seeds),
        tuple(options.learning_rates),
        options.model,
        options.epochs,
    )
    count, minutes = requested.minutes_left()
    print(f"{count} runs are missing: some {minutes:.0f} minutes of one core.", flush=True)
    for run in requested.missing():
        result = one(run, options)
        store.add(run.name, result)
        shown = " ".join(f"{100 * score:.1f}" for score in result["validation"]["score"])
        count, minutes = requested.minutes_left()
        print(f"{run.name}: {shown}; {count} left, {minutes:.0f} minutes", flush=True)


def one(run: plan.Run, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one run."""
    start = time.perf_counter()
    rows, pool = training_rows(run.task, options.rows)
    model = plan.MODELS[run.model]
    settings = Settings(
        exits=model.exits,
        weights=options.weights or model.weights,
        epochs=run.epochs,
        learning_rate=run.learning_rate,
        batch_size=16,
        by_length=True,
        bf16=not options.float32,
    )
    method = METHODS[run.method]
    conflict = None if method is None else GradientConflictCallback(CONFLICT_EVERY)
    plain = plan.plain_of(run)
    tuned = fine_tune(
        run.method,
        *rows,
        run.seed,
        settings,
        run.folder,
        [] if conflict is None else [conflict],
        None if plain is None else plain.full_depth_model,
    )
    metric = plan.METRIC.get(run.task, "accuracy")
    splits = {"pool": pool, "validation": read_task(run.task, "validation")}
    outcomes = observe(tuned.artifact, splits)
    for split, of_split in outcomes.items():
        keep(of_split, run.folder / f"{split}.npz")
    return {
        **provenance(),
        "run": run.name,
        "settings": {
            "exits": list(settings.exits),
            "epochs": settings.epochs,
            "learning_rate": run.learning_rate,
            "batch_size": settings.batch_size,
            "bf16": settings.bf16,
            "rows": len(rows[0]),
            "plain": None if plain is None else plain.name,
        },
        "layers_run": list(outcomes["pool"].layers_run),
        "metric": metric,
        **{split: figures(of_split, metric) for split, of_split in outcomes.items()},
        "training_seconds": round(tuned.seconds, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "gradient_conflict": None if conflict is None else conflict.result.to_dict(),
    }


Rows = tuple[list[Any], list[int]]


def training_rows(task: str, count: int) -> tuple[Rows, Rows]:
    """Returns the training rows, and held-out rows of the training pool: the following ones, or the last sixth if there
    are none.
    """
    texts, labels = read_task(task, "train", count)
    try:
        more = read_task(task, "train_20k", count + POOL)
    except SystemExit:
        stop = len(texts) - round(len(texts) / 6)
        return (texts[:stop], labels[:stop]), (texts[stop:], labels[stop:])
    return (texts, labels), (more[0][count:], more[1][count:])


def observe(artifact: Artifact, splits: dict[str, Rows]) -> dict[str, ExitOutcomes]:
    """Computes the logits of every exit on every split."""
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory)
    return {
        split: ExitOutcomes.observe(model, model.read(texts, MAX_LENGTH), labels)
        for split, (texts, labels) in splits.items()
    }


def keep(outcomes: ExitOutcomes, path: Path) -> None:
    """Saves the logits of every exit."""
    correctness_logits = {} if outcomes.correctness_logits is None else {"certainties": outcomes.correctness_logits}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, logits=outcomes.logits, labels=outcomes.labels, **correctness_logits)


def figures(outcomes: ExitOutcomes, metric: str) -> dict[str, Any]:
    """Returns the score of every exit, the max-probability curve, and the area under the curve of every criterion."""
    score = METRICS[metric]
    curves = {
        criterion: curve(outcomes, criterion, metric)
        for criterion in CRITERIA
        if criterion != "learned" or outcomes.correctness_logits is not None
    }
    areas = {name: area(points, outcomes.layers_run, outcomes.exits[-1]) for name, points in curves.items()}
    return {
        "rows": len(outcomes),
        "score": [
            round(score(outcomes.predictions()[:, place], outcomes.labels), 5) for place in range(len(outcomes.exits))
        ],
        "area": round(areas["max_probability"], 5),
        "areas": {name: round(value, 7) for name, value in areas.items()},
        "curve": curves["max_probability"],
    }


def curve(outcomes: ExitOutcomes, criterion: str, metric: str) -> list[list[float]]:
    """Returns shares of rows per exit and score for a range of thresholds, one for all exits as in the paper."""
    policy = dataclasses.replace(Policy.uniform(len(outcomes.exits)), criterion=criterion)
    points = []
    for threshold in thresholds_between(outcomes.confidences(policy)[:, :-1], POINTS):
        swept = policy.with_threshold(threshold)
        shares = np.bincount(outcomes.leaving(swept), minlength=len(outcomes.exits)) / len(outcomes)
        score = METRICS[metric](outcomes.answers(swept), outcomes.labels)
        points.append([*(round(float(share), 4) for share in shares), round(score, 5)])
    return points


def at_budgets(points: list[list[float]], costs: Any, budgets: np.ndarray) -> np.ndarray:
    """Returns the score of a curve at each budget of mean cost, interpolated linearly and constant beyond the ends.

    Args:
        points: output of `curve`.
        costs: cost of a row per exit.
        budgets: in the unit of the costs.
    """
    table = np.array(points)
    spent, score = table[:, :-1] @ np.asarray(costs, dtype=float), table[:, -1]
    order = np.lexsort((score, spent))
    return np.interp(budgets, spent[order], score[order])


def area(points: list[list[float]], costs: Any, max_cost: float) -> float:
    """Returns the mean score over budgets from the cost of the first exit to `max_cost`."""
    return float(at_budgets(points, costs, np.linspace(costs[0], max_cost, 51)).mean())


if __name__ == "__main__":
    main()
