"""Recipes that may be better than SWEET, Early-Exit and plain fine-tuning at once, tried on the training pool.

    python benchmarks/recipes.py --task sst2

Trains on five sixths of the pool and scores every exit on the last sixth; validation rows have no part in it. The
teacher of a recipe is the plain fine-tuning of the same weights on the same rows with the same seed, which is also what
the last exit is compared with. Finished runs are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import numpy as np
import torch
from fine_tuning import METHODS, MULTI_MODEL, Settings, fine_tune
from paper.run import METRIC, ROWS, split_off
from record import RESULTS, RUNS, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.curve import make_curve, threshold_grid
from itrex_sweet.evaluation.metrics import METRICS
from itrex_sweet.evaluation.outcomes import ExitOutcomes

PLAIN = "plain fine-tuning"
RECIPES = [method for method in METHODS if method not in (MULTI_MODEL, "paper")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name = f"recipes_{options.task}"
    known = json.loads((RESULTS / f"{name}.json").read_text())["runs"] if (RESULTS / f"{name}.json").is_file() else {}
    settings = Settings(learning_rate=options.learning_rate, bf16=True)
    runs = dict(known)
    for seed in options.seeds:
        for recipe in (PLAIN, *options.recipes):
            key = f"{recipe}, seed {seed}"
            if key not in runs:
                runs[key] = one(options.task, recipe, seed, settings)
                shown = " ".join(f"{100 * score:.1f}" for score in runs[key]["score"])
                print(f"{key}: {shown}; area {100 * runs[key]['area']:.2f}", flush=True)
                facts = {field: getattr(settings, field) for field in ("learning_rate", "epochs", "batch_size", "bf16")}
                write_result(name, {**provenance(), "task": options.task, "settings": facts, "runs": runs})


def one(task: str, recipe: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Trains and scores one recipe with one seed."""
    texts, labels, (held_out, truth) = split_off(*read_task(task, "train", ROWS))
    folder = RUNS / task / "recipes"
    teacher = folder / f"{PLAIN}-{seed}".replace(" ", "-")
    if recipe == PLAIN:
        alone = dataclasses.replace(settings, exits=settings.exits[-1:])
        artifact, seconds = fine_tune("joint", texts, labels, seed, alone, teacher)
    else:
        target = folder / f"{recipe}-{seed}".replace(" ", "-")
        taught = teacher if recipe.endswith("teacher") else None
        artifact, seconds = fine_tune(recipe, texts, labels, seed, settings, target, teacher=taught)
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory)
    outcomes = ExitOutcomes.observe(model, model.read(held_out, 128), truth)
    metric = METRICS[METRIC.get(task, "accuracy")]
    policy = Policy.uniform(len(outcomes.exits))
    curve = make_curve(outcomes, policy, threshold_grid(outcomes, policy, 40), metric=metric)
    full = metric(outcomes.predictions()[:, -1], outcomes.labels)
    return {
        "exits": list(outcomes.exits),
        "score": [round(metric(outcomes.predictions()[:, k], outcomes.labels), 5) for k in range(len(outcomes.exits))],
        "area": round(curve.area, 5),
        "curve": [[round(point.mean_layers, 3), round(point.metric, 5)] for point in curve.points],
        "layers_for_99_percent_of_its_last_exit": cheapest(curve.points, 0.99 * full),
        "rows": [len(texts), len(truth)],
        "seconds": round(seconds),
        "commit": provenance()["commit"],
    }


def cheapest(points: Any, least: float) -> float:
    """Mean layers of the cheapest threshold whose score is at least so much."""
    return round(float(np.min([point.mean_layers for point in points if point.metric >= least])), 3)


if __name__ == "__main__":
    main()
