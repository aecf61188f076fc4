"""Exit criteria compared by the area under the speed–accuracy curve, in measured milliseconds.

    python benchmarks/policies.py --tasks sst2 qnli ag_news

Uses the trained models of `decoupled/run.py` in `--folder`, in INT8 (`decoupled/artifacts.py`). For each criterion,
policies from conservative to aggressive are searched, as `calibrate` does, on rows that were used for neither training
nor quantization. Their accuracy is measured on validation rows, their time on a sample of those, all policies of a task
interleaved.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from decoupled.artifacts import FOLDER, int8_artifact, run_folder
from record import check_idle_machine, held_out_rows, measure, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import CostTable
from itrex_sweet.calibration.guarantees import exit_losses
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.calibration.temperature import fit_temperature
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.timing import sample_rows
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.ragged import TokenBatch

BATCH = 32
FIRST, FULL = "everyone at the first exit", "full depth"
# name → criterion, thresholds per exit (or one for all), temperatures (or none); the first is the baseline
WAYS: dict[str, tuple[str, bool, bool]] = {
    "max-probability": ("max_probability", True, True),
    "max-probability, one threshold": ("max_probability", False, True),
    "max-probability, no temperatures": ("max_probability", True, False),
    "max-probability, one threshold, no temperatures": ("max_probability", False, False),
    "entropy": ("entropy", True, True),
    "margin": ("margin", True, True),
    "patience": ("patience", True, True),
    "patience and confidence": ("patience_and_confidence", True, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--calibration-rows", type=int, default=2000)
    parser.add_argument("--reported-rows", type=int, default=3000, help="maximum validation rows")
    parser.add_argument("--timed-rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    names = ("calibration_rows", "reported_rows", "timed_rows", "repeats")
    settings = {name: getattr(options, name) for name in names}
    result: dict[str, Any] = {**provenance(), "settings": settings, "tasks": {}}
    for task in options.tasks:
        check_idle_machine()
        result["tasks"][task] = of_task(task, options)
        for way, figures in result["tasks"][task]["ways"].items():
            print(
                f"{task:>8} {way:<48} {100 * figures['area']:6.2f} {100 * figures['against_first']:+6.2f}", flush=True
            )
        path = write_result("policies", result)
    print(path)


def of_task(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures the curve of every criterion."""
    model = SweetModelForSequenceClassification.from_pretrained(int8_artifact(run_folder(options.folder, task)))
    texts, labels = held_out_rows(task, options.calibration_rows)
    batch = model.read(texts, 128)
    chosen_on = ExitOutcomes.observe(model, batch, labels)
    texts, labels = read_task(task, "validation", options.reported_rows)
    reported_batch = model.read(texts, 128)
    reported = ExitOutcomes.observe(model, reported_batch, labels)

    tables = {name: measure_costs(model, batch, (1, BATCH), name) for name in ("max_probability", "entropy")}
    policies_by_way = {way: policies_of(way, model.policy, chosen_on, batch, tables) for way in WAYS}
    exits = len(model.artifact.exits)
    ends = {FIRST: Policy((0.0,) * (exits - 1), (1.0,) * exits), FULL: Policy((1.0,) * (exits - 1), (1.0,) * exits)}
    timed = sample_rows(reported_batch, options.timed_rows)
    every = {policy: None for policies in (*policies_by_way.values(), ends.values()) for policy in policies}
    contenders = {policy: partial(model.executor.run, timed, policy, BATCH) for policy in every}
    clock = {policy: times["median"] for policy, times in measure(contenders, options.repeats, len(timed)).items()}
    low, high = clock[ends[FIRST]], clock[ends[FULL]]

    correct = {policy: reported.answers(policy) == reported.labels for policy in every}
    per_row = {way: row_areas(policies, clock, correct, low, high) for way, policies in policies_by_way.items()}
    base = per_row[next(iter(WAYS))]
    ways = {}
    for way, policies in policies_by_way.items():
        difference = per_row[way] - base
        ways[way] = {
            "area": round(float(per_row[way].mean()), 5),
            "against_first": round(float(difference.mean()), 5),
            "standard_error": round(float(difference.std(ddof=1) / len(difference) ** 0.5), 5),
            "points": [
                {
                    "thresholds": [round(value, 4) for value in policy.thresholds],
                    "milliseconds": clock[policy],
                    "accuracy": round(float(correct[policy].mean()), 5),
                }
                for policy in policies
            ],
        }
    return {
        "rows": {"chosen_on": len(chosen_on), "reported": len(reported), "timed": len(timed)},
        "milliseconds": {FIRST: low, FULL: high},
        "accuracy_per_exit": np.round((reported.predictions() == reported.labels[:, None]).mean(0), 4).tolist(),
        "ways": ways,
    }


def policies_of(
    way: str, policy: Policy, seen: ExitOutcomes, batch: TokenBatch, tables: dict[str, CostTable]
) -> list[Policy]:
    """Returns the candidate policies of a criterion, from full depth to the most aggressive."""
    criterion, per_exit, with_temperatures = WAYS[way]
    exits = range(len(seen.exits))
    temperatures = tuple(
        fit_temperature(seen.logits[:, place], seen.labels) if with_temperatures else 1.0 for place in exits
    )
    policy = dataclasses.replace(policy, criterion=criterion, temperatures=temperatures)
    # The engine computes the first criterion itself; the others run in Python.
    table = tables["max_probability" if criterion == "max_probability" else "entropy"]
    losses = exit_losses(seen.predictions(), seen.labels)
    costs = table.of(batch.lengths, BATCH)
    return candidate_policies(policy, seen.confidences(policy), losses, costs, per_exit)


def row_areas(
    policies: list[Policy], clock: dict[Policy, float], correct: dict[Policy, np.ndarray], low: float, high: float
) -> np.ndarray:
    """Returns (rows,), each row's contribution to the accuracy averaged over time budgets from `low` to `high` ms.

    Accuracy is interpolated linearly between two policies, and constant after the last. Policies that are slower and
    not more accurate than another are left out.
    """
    points = sorted({clock[policy]: policy for policy in policies}.items())
    kept: list[tuple[float, Policy]] = []
    for milliseconds, policy in points:
        if not kept or correct[policy].mean() > correct[kept[-1][1]].mean():
            kept.append((milliseconds, policy))
    times = np.array([milliseconds for milliseconds, _ in kept])
    budgets = np.unique(np.concatenate([np.linspace(low, high, 400), times.clip(low, high)]))
    weights = np.zeros(len(kept))
    spans = np.gradient(budgets)
    for place in range(len(kept)):
        share = np.interp(budgets, times, np.eye(len(kept))[place])
        weights[place] = (share * spans).sum() / spans.sum()
    return sum(weight * correct[policy] for weight, (_, policy) in zip(weights, kept, strict=True))


if __name__ == "__main__":
    main()
