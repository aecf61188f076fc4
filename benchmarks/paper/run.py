"""Runs what is missing of the paper's figures, and writes each run's result as it ends; `make paper` calls it.

    python benchmarks/paper/run.py                                     # everything: says first how long it will take
    python benchmarks/paper/run.py --tasks cola --seeds 0 --learning-rates 1e-4
    python benchmarks/paper/report.py                                  # tables and pictures into docs/paper.md

MiniLM of 6 layers, exits 1/2/4/6, at most 6000 training rows, as in the paper. The learning rate is chosen per method
and task on a sixth of the training pool, never on the rows that are reported. A run's model and its logits on the
reported rows stay in `benchmarks/runs/paper`, its scores in `benchmarks/results/paper`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from fine_tuning import MULTI_MODEL, Settings, fine_tune
from record import provenance, read_task

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.curve import threshold_grid
from itrex_sweet.evaluation.metrics import METRICS
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.training import GradientConflictCallback
from paper.plan import LEARNING_RATES, METHODS, SEEDS, TASKS, Run, best_learning_rate, every_run, minutes_left

ROWS, SPLIT_OFF = 6000, 1 / 6
METRIC = {"cola": "matthews"}  # of the others: accuracy
CONFLICT_EVERY = 20  # forwards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=LEARNING_RATES)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--float32", action="store_true", help="instead of bfloat16 autocast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rates = tuple(options.learning_rates)
    runs = every_run(tuple(options.tasks), tuple(options.methods), tuple(options.seeds), rates)
    missing = [run for run in runs if not run.path.is_file()]
    print(f"{len(missing)} of {len(runs)} runs are missing: some {minutes_left(runs):.0f} minutes.", flush=True)
    for number, run in enumerate(missing, start=1):
        result = one(run, run.learning_rate or best_learning_rate(run.task, run.method, rates), options)
        run.path.parent.mkdir(parents=True, exist_ok=True)
        run.path.write_text(json.dumps(result, indent=1) + "\n")
        shown = " ".join(f"{100 * score:.1f}" for score in result["score"])
        print(f"{number} of {len(missing)}: {run.name}: {shown}; {minutes_left(runs):.0f} minutes left", flush=True)


def one(run: Run, learning_rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores one run."""
    texts, labels = read_task(run.task, "train", ROWS)
    reported = read_task(run.task, "validation")
    if run.learning_rate is not None:
        texts, labels, reported = split_off(texts, labels)
    settings = Settings(epochs=options.epochs, learning_rate=learning_rate, bf16=not options.float32)
    watched = run.method != MULTI_MODEL and run.learning_rate is None
    conflict = GradientConflictCallback(CONFLICT_EVERY)
    artifact, seconds = fine_tune(
        run.method, texts, labels, run.seed, settings, run.folder, [conflict] if watched else []
    )
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory)
    outcomes = ExitOutcomes.observe(model, model.read(reported[0], 128), reported[1])
    if run.learning_rate is None:
        certainties = {} if outcomes.certainties is None else {"certainties": outcomes.certainties}
        np.savez(run.folder / "reported.npz", logits=outcomes.logits, labels=outcomes.labels, **certainties)
    metric = METRIC.get(run.task, "accuracy")
    return {
        **provenance(),
        "run": run.name,
        "settings": {
            "exits": list(settings.exits),
            "epochs": settings.epochs,
            "learning_rate": learning_rate,
            "batch_size": settings.batch_size,
            "bf16": settings.bf16,
            "rows": len(texts),
        },
        "layers_run": list(outcomes.layers_run),
        "metric": metric,
        "rows_scored": len(outcomes),
        "score": [
            round(METRICS[metric](outcomes.predictions()[:, place], outcomes.labels), 5)
            for place in range(len(outcomes.exits))
        ],
        "curve": curve(outcomes, metric),
        "seconds": round(seconds, 1),
        "gradient_conflict": conflict.result.to_dict() if watched else None,
    }


def split_off(texts: list[Any], labels: list[int]) -> tuple[list[Any], list[int], tuple[list[Any], list[int]]]:
    """The pool without its last sixth, and that sixth."""
    stop = len(texts) - round(SPLIT_OFF * len(texts))
    return texts[:stop], labels[:stop], (texts[stop:], labels[stop:])


def curve(outcomes: ExitOutcomes, metric: str) -> list[list[float]]:
    """Mean layers and score for one threshold of the largest probability for all exits, swept, as the paper's."""
    policy = Policy.uniform(len(outcomes.exits))
    points = []
    for threshold in threshold_grid(outcomes, policy, 40):
        tried = policy.with_threshold(threshold)
        score = METRICS[metric](outcomes.answers(tried), outcomes.labels)
        points.append([round(outcomes.mean_layers(tried), 4), round(score, 5)])
    return points


if __name__ == "__main__":
    main()
