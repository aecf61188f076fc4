"""INT8 recipes: accuracy per exit, temperatures and calibration errors, on several tasks.

    python benchmarks/quantize_recipes.py --tasks sst2 qnli ag_news

Quantizes the trained models of `decoupled/run.py` in `--folder` (`decoupled/artifacts.py`), and reports on validation
rows with the INT8 reference of the `torch` backend. Writes `benchmarks/results/quantization_ENVIRONMENT.json`.
"""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoupled.artifacts import FOLDER, OBSERVED, float32_artifact, int8_artifact, run_folder
from record import FIRST_HELD_OUT_ROW, TRAINED, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.calibration import brier_score, expected_calibration_error
from itrex_sweet.evaluation.outcomes import ExitOutcomes

RECIPES = ("static", "smooth", "dynamic", "auto")
COMPRESSORS = ("neural-compressor-pt", "torchao", "intel-extension-for-pytorch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--reported", type=int, default=1000, help="validation rows, the first ones")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    environment = "ipex" if _version("intel-extension-for-pytorch") else "default"
    tasks = {}
    for task in options.tasks:
        tasks[task] = measure(task, environment, options)
        versions = {name: _version(name) for name in COMPRESSORS}
        settings = {
            "observed": OBSERVED,
            "judged": FIRST_HELD_OUT_ROW - TRAINED - OBSERVED,
            "reported": options.reported,
            "threads": options.threads,
        }
        result = {**provenance(), "compressors": versions, "settings": settings, "tasks": tasks}
        path = write_result(f"quantization_{environment}", result)
    print(path)


def measure(task: str, environment: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures every recipe on one task."""
    run = run_folder(options.folder, task)
    model = SweetModelForSequenceClassification.from_pretrained(float32_artifact(run), backend="torch")
    exits = list(model.artifact.exits)
    before = report(model, task, options.reported)
    print_figures(task, "float32", before)
    recipes = {}
    for recipe in options.recipes:
        folder = int8_artifact(run, recipe, environment)
        model = SweetModelForSequenceClassification.from_pretrained(folder, backend="torch")
        quantization = model.artifact.quantization
        after = report(model, task, options.reported)
        same = np.mean(after.pop("labels") == before["labels"], axis=0)
        recipes[recipe] = {
            **after,
            "same_label_as_float32": np.round(100 * same, 2).tolist(),
            "taken": quantization["recipe"],
            "float_layers": quantization["float_layers"],
            "rows_at_another_exit": quantization["rows_at_another_exit"],
        }
        print_figures(task, recipe, recipes[recipe])
    before.pop("labels")
    return {"exits": exits, "float32": before, "recipes": recipes}


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
        f"calibration error {error['temperature 1']} → {error['fitted']}",
        flush=True,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
