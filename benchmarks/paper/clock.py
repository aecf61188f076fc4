"""Speed–accuracy curves by the clock, of the runs that are there: float32 and INT8 on the native engine.

    python benchmarks/paper/clock.py --prepare      # quantizes what is not quantized yet
    python benchmarks/paper/clock.py                # times, on an idle machine: a minute or two a task

What a row takes to each exit is measured on this machine by `itrex_sweet.calibration.costs`, per task, precision and
architecture, batches of 32; where rows leave comes from what every exit of each seed's model says of the validation
rows. A seed whose models are not there is left out. Cascades are not quantized.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from record import provenance, read_task, refuse_busy_machine, write_result

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.calibration.costs import RowCosts, measure_costs
from itrex_sweet.config import Policy
from itrex_sweet.data import Rows
from itrex_sweet.evaluation.curve import thresholds_between
from itrex_sweet.evaluation.metrics import METRICS
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from paper import plan
from paper.run import MAX_LENGTH, POINTS, TRAINED, training_rows

BATCH, OBSERVED = 32, 200
FLOAT32, INT8 = "float32", "int8"
METHODS = (plan.MULTI_MODEL, "sweet", "joint", plan.RECIPE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=plan.SEEDS)
    parser.add_argument("--prepare", action="store_true", help="only quantize")
    options = parser.parse_args()
    result: dict[str, Any] = {**provenance(), "settings": {"batch": BATCH}, "tasks": {}}
    for task in options.tasks:
        runs = {seed: runs for seed in options.seeds if (runs := trained(task, seed))}
        for run in (run for of_seed in runs.values() for run in of_seed.values()):
            if run.method != plan.MULTI_MODEL:
                quantize(run)
        if not options.prepare and runs:
            refuse_busy_machine()
            result["tasks"][task] = of_task(task, runs)
            path = write_result("paper_clock", result)
            print(task, {name: round(value, 3) for name, value in result["tasks"][task]["full"].items()}, flush=True)
    if not options.prepare:
        print(path)


def trained(task: str, seed: int) -> dict[str, plan.Run]:
    """Every method's reported run, if the models of all are there."""
    runs = {method: plan.reported(task, method, seed) for method in METHODS}
    return runs if all(run is not None and run.folder.is_dir() for run in runs.values()) else {}


def quantize(run: plan.Run) -> Path:
    """Makes the INT8 artifact of a run, unless it is there."""
    folder = run.folder.parent / f"{run.name}-int8"
    if not folder.is_dir():
        texts, labels = training_rows(run.task, TRAINED)[1]
        rows = Rows(texts, labels, source=f"{run.task}, rows of the pool")
        SweetQuantizer.from_pretrained(run.folder).quantize(rows, folder, "static", rows=OBSERVED)
    return folder


def of_task(task: str, runs: dict[int, dict[str, plan.Run]]) -> dict[str, Any]:
    """Curves of every precision, method and seed, in milliseconds per row."""
    texts, labels = read_task(task, "validation")
    metric = METRICS[plan.METRIC.get(task, "accuracy")]
    costs: dict[tuple[bool, str], RowCosts] = {}
    curves: dict[str, dict[str, list]] = {FLOAT32: {}, INT8: {}}
    for run in (run for of_seed in runs.values() for run in of_seed.values()):
        cascade = run.method == plan.MULTI_MODEL
        for precision in (FLOAT32,) if cascade else (FLOAT32, INT8):
            folder = run.folder if precision == FLOAT32 else quantize(run)
            model = SweetModelForSequenceClassification.from_pretrained(folder)
            batch = model.read(texts, MAX_LENGTH)
            kind = (cascade, precision)
            if kind not in costs:  # of one architecture, whatever the weights
                costs[kind] = measure_costs(model, batch, (BATCH,), "max_probability").of(batch.lengths, BATCH)
            found = curve(ExitOutcomes.observe(model, batch, labels), costs[kind], metric)
            curves[precision].setdefault(run.method, []).append(found)
    full = {
        precision: round(float(each.through[:, -1].mean()), 5)
        for (cascade, precision), each in costs.items()
        if not cascade
    }
    return {"rows": len(labels), "seeds": list(runs), "full": full, "curves": curves}


def curve(outcomes: ExitOutcomes, costs: RowCosts, metric: Any) -> list[list[float]]:
    """Mean milliseconds and score for one threshold of the largest probability for all exits, swept."""
    policy = Policy.uniform(len(outcomes.exits))
    points = []
    for threshold in thresholds_between(outcomes.confidences(policy)[:, :-1], POINTS):
        tried = policy.with_threshold(threshold)
        milliseconds = costs.under(tried, outcomes.leaving(tried)).mean()
        points.append([round(float(milliseconds), 5), round(metric(outcomes.answers(tried), outcomes.labels), 5)])
    return points


if __name__ == "__main__":
    main()
