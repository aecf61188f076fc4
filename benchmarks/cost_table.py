"""Accuracy of the cost table of `calibrate`: predicted over measured mean time of policies.

    python benchmarks/cost_table.py --tasks sst2 qnli ag_news

Uses the trained models of `decoupled/run.py` in `--folder`, in INT8 (`decoupled/artifacts.py`). Measures a table on
calibration rows, then times policies from full depth to the most aggressive on other rows, one text at a time and in
batches of 32. Both are repeated in alternation, since the speed of a shared machine varies. Reports medians and ranges
of the ratios.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from decoupled.artifacts import FOLDER, int8_artifact, run_folder
from record import check_idle_machine, held_out_rows, measure, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.guarantees import exit_losses
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.timing import sample_rows
from itrex_sweet.policy import Policy

SIZES = (1, 32)
POLICIES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--calibration-rows", type=int, default=1000)
    parser.add_argument("--timed-rows", type=int, default=800)
    parser.add_argument("--alternations", type=int, default=5)
    options = parser.parse_args()
    names = ("calibration_rows", "timed_rows", "alternations")
    settings = {name: getattr(options, name) for name in names}
    result: dict[str, Any] = {**provenance(), "settings": settings, "tasks": {}}
    for task in options.tasks:
        check_idle_machine()
        result["tasks"][task] = of_task(task, options)
        print(task, result["tasks"][task], flush=True)
        path = write_result("cost_table", result)
    print(path)


def of_task(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns per batch size predicted and measured milliseconds and their ratios, a column per policy."""
    model = SweetModelForSequenceClassification.from_pretrained(int8_artifact(run_folder(options.folder, task)))
    texts, labels = held_out_rows(task, options.calibration_rows)
    batch = model.read(texts, 128)
    policies = some_policies(ExitOutcomes.observe(model, batch, labels), model.policy)
    timed = sample_rows(model.read(read_task(task, "validation")[0], 128), options.timed_rows)
    seen = ExitOutcomes.from_executor(model.executor, timed)
    single = [timed.select(np.array([row])) for row in range(len(timed))]

    def run(size: int, policy: Policy) -> None:
        for part in single if size == 1 else [timed]:
            model.executor.run(part, policy, size)

    pairs = {(size, policy): partial(run, size, policy) for size in SIZES for policy in policies}
    predicted_ms: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    measured_ms: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    for _ in range(options.alternations):
        table = measure_costs(model, batch, SIZES, "max_probability")
        clock = measure(pairs, 1, len(timed))
        for size in SIZES:
            predicted_ms[size].append(predicted(table.of(timed.lengths, size), policies, seen))
            measured_ms[size].append([clock[size, policy]["median"] for policy in policies])
    return {f"batch {size}": summary(np.array(predicted_ms[size]), np.array(measured_ms[size])) for size in SIZES}


def some_policies(outcomes: ExitOutcomes, policy: Policy) -> list[Policy]:
    """Selects policies from full depth to the most aggressive, by layers, independent of a cost table."""
    costs = RowCosts.from_layers(outcomes.layers_run, len(outcomes))
    losses = exit_losses(outcomes.predictions(), outcomes.labels)
    candidates = candidate_policies(policy, outcomes.confidences(policy), losses, costs)
    return [
        candidates[place] for place in sorted({*np.linspace(0, len(candidates) - 1, POLICIES).astype(int).tolist()})
    ]


def predicted(costs: RowCosts, policies: list[Policy], seen: ExitOutcomes) -> list[float]:
    return [float(costs.under(policy, seen.leaving(policy)).mean()) for policy in policies]


def summary(predicted_ms: np.ndarray, measured_ms: np.ndarray) -> dict[str, Any]:
    """Summarizes milliseconds of shape (alternations, policies)."""
    ratios = predicted_ms / measured_ms
    return {
        "measured": np.round(np.median(measured_ms, axis=0), 4).tolist(),
        "predicted": np.round(np.median(predicted_ms, axis=0), 4).tolist(),
        "ratio": np.round(np.median(ratios, axis=0), 3).tolist(),
        "least": np.round(ratios.min(axis=0), 3).tolist(),
        "most": np.round(ratios.max(axis=0), 3).tolist(),
    }


if __name__ == "__main__":
    main()
