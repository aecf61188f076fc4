"""INT8 recipes: accuracy per exit, temperatures and calibration errors, on several tasks.

    python benchmarks/quantize_recipes.py --tasks sst2 qnli ag_news

Uses the artifacts of `train_models.py` in `benchmarks/runs/TASK/sweet-0`. Calibrates on rows that were not trained on
(after the 6000th of `train_20k`), and reports on validation rows with the INT8 reference of the `torch` backend. Writes
`benchmarks/results/quantization_ENVIRONMENT.json`, and the artifacts beside the models.
"""

from __future__ import annotations

import argparse
import time
from importlib import metadata
from typing import Any

import numpy as np
import torch
from record import RUNS, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.calibration import brier_score, expected_calibration_error
from itrex_sweet.data import Rows
from itrex_sweet.evaluation.outcomes import ExitOutcomes

RECIPES = ("static", "smooth", "dynamic", "auto")
FIRST_FREE_ROW = 6000
COMPRESSORS = ("neural-compressor-pt", "torchao", "intel-extension-for-pytorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--observed", type=int, default=200, help="rows for the ranges")
    parser.add_argument("--judged", type=int, default=500, help="other rows to compare recipes and fit temperatures")
    parser.add_argument("--reported", type=int, default=1000, help="validation rows, the first ones")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    environment = "ipex" if _version("intel-extension-for-pytorch") else "default"
    tasks = {}
    for task in options.tasks:
        tasks[task] = measure(task, environment, options)
        versions = {name: _version(name) for name in COMPRESSORS}
        settings = {name: getattr(options, name) for name in ("observed", "judged", "reported", "threads")}
        result = {**provenance(), "compressors": versions, "settings": settings, "tasks": tasks}
        path = write_result(f"quantization_{environment}", result)
    print(path)


def measure(task: str, environment: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures every recipe on one task."""
    folder = RUNS / task
    texts, labels = read_task(task, "train_20k")
    stop = FIRST_FREE_ROW + options.observed + options.judged
    free = slice(FIRST_FREE_ROW, stop)
    calibration = Rows(texts[free], labels[free], source=f"{task}, rows {FIRST_FREE_ROW} to {stop}")
    quantizer = SweetQuantizer.from_pretrained(folder / "sweet-0")
    before = report(quantizer.model, task, options.reported)
    print_figures(task, "float32", before)
    recipes = {}
    for recipe in options.recipes:
        start = time.perf_counter()
        target = folder / f"int8-{recipe}-{environment}"
        artifact = quantizer.quantize(calibration, target, recipe, rows=options.observed)
        seconds = round(time.perf_counter() - start)
        model = SweetModelForSequenceClassification.from_pretrained(target, backend="torch")
        after = report(model, task, options.reported)
        same = np.mean(after.pop("labels") == before["labels"], axis=0)
        recipes[recipe] = {
            **after,
            "same_label_as_float32": np.round(100 * same, 2).tolist(),
            "taken": artifact.quantization["recipe"],
            "float_layers": artifact.quantization["float_layers"],
            "rows_at_another_exit": artifact.quantization["rows_at_another_exit"],
            "seconds": seconds,
        }
        print_figures(task, recipe, recipes[recipe])
    before.pop("labels")
    return {"exits": list(quantizer.model.artifact.exits), "float32": before, "recipes": recipes}


def report(model: SweetModelForSequenceClassification, task: str, limit: int) -> dict[str, Any]:
    """Returns accuracy per exit in percent, calibration errors with and without temperatures, and sizes."""
    texts, labels = read_task(task, "validation", limit)
    outcomes = ExitOutcomes.observe(model, model.read(texts), labels)
    temperatures = model.policy.temperatures
    exits = range(len(temperatures))

    def per_exit(score: Any, fitted: bool) -> list[float]:
        values = [score(outcomes.logits[:, k], outcomes.labels, temperatures[k] if fitted else 1.0) for k in exits]
        return [round(value, 4) for value in values]

    tensors = model.artifact.tensors()
    encoder = [tensor for name, tensor in tensors.items() if ".layer." in name]
    policy = model.policy
    return {
        "rows": len(labels),
        "labels": outcomes.predictions(),
        "accuracy": np.round(100 * (outcomes.predictions() == outcomes.labels[:, None]).mean(0), 2).tolist(),
        "early_exit": {
            "thresholds": [round(value, 4) for value in policy.thresholds],
            "accuracy": round(100 * float((outcomes.answers(policy) == outcomes.labels).mean()), 2),
            "mean_layers": round(outcomes.mean_layers(policy), 3),
        },
        "temperatures": [round(value, 4) for value in temperatures],
        "calibration_error": {
            "temperature 1": per_exit(expected_calibration_error, False),
            "fitted": per_exit(expected_calibration_error, True),
        },
        "brier_score": {"temperature 1": per_exit(brier_score, False), "fitted": per_exit(brier_score, True)},
        "bytes": {
            "encoder": sum(tensor.numel() * tensor.element_size() for tensor in encoder),
            "all": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        },
    }


def print_figures(task: str, recipe: str, figures: dict[str, Any]) -> None:
    """Prints a line with the results of a recipe."""
    error = figures["calibration_error"]
    print(
        f"{task:<8} {recipe:<8} accuracy {figures['accuracy']}  temperatures {figures['temperatures']}  "
        f"calibration error {error['temperature 1']} → {error['fitted']}  {figures.get('seconds', 0)} s",
        flush=True,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
