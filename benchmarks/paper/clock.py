"""Speed–accuracy curves in measured time of the available runs: float32 and INT8 on the native engine.

    python benchmarks/paper/clock.py --prepare      # quantizes the models that are not quantized yet
    python benchmarks/paper/clock.py                # measures, on an idle machine

Both print the expected duration first. The time of a row to each exit is measured by `itrex_sweet.calibration.costs`,
per task, precision and architecture, in batches of 32; the exits of rows come from the logits of each seed's model on
the validation rows. Seeds without models are left out. Cascades are not quantized.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from record import check_idle_machine, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.data import Rows
from itrex_sweet.evaluation.curve import thresholds_between
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.metrics import METRICS
from itrex_sweet.policy import Policy
from paper import plan
from paper.run import MAX_LENGTH, POINTS, TRAINED, training_rows

BATCH, OBSERVED = 32, 200
FLOAT32, INT8 = "float32", "int8"
MINUTES_TO_QUANTIZE = 0.5
MINUTES_TO_TIME = 0.8, 0.5  # per task, and per seed
METHODS = (plan.MULTI_MODEL, "sweet", "joint", plan.RECIPE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=plan.SEEDS)
    parser.add_argument("--prepare", action="store_true", help="quantize only")
    options = parser.parse_args()
    runs = {
        task: {seed: of_seed for seed in options.seeds if (of_seed := trained(task, seed))} for task in options.tasks
    }
    runs = {task: seeds for task, seeds in runs.items() if seeds}
    to_quantize = [
        run
        for seeds in runs.values()
        for of_seed in seeds.values()
        for run in of_seed.values()
        if run.method != plan.MULTI_MODEL and not int8_folder(run).is_dir()
    ]
    minutes = MINUTES_TO_QUANTIZE * len(to_quantize)
    if not options.prepare:
        minutes += sum(MINUTES_TO_TIME[0] + MINUTES_TO_TIME[1] * len(seeds) for seeds in runs.values())
    print(f"{len(runs)} tasks, {len(to_quantize)} models to quantize: some {minutes:.0f} minutes.", flush=True)
    for run in to_quantize:
        quantize(run)
    if options.prepare:
        return
    result: dict[str, Any] = {**provenance(), "settings": {"batch": BATCH}, "tasks": {}}
    for task, seeds in runs.items():
        check_idle_machine()
        result["tasks"][task] = of_task(task, seeds)
        path = write_result("paper_clock", result)
        print(task, {name: round(value, 3) for name, value in result["tasks"][task]["full"].items()}, flush=True)
    if runs:
        print(path)


def trained(task: str, seed: int) -> dict[str, plan.Run]:
    """Returns the reported run of every method, or nothing if a model is missing."""
    runs = {method: plan.reported(task, method, seed) for method in METHODS}
    return runs if all(run is not None and run.folder.is_dir() for run in runs.values()) else {}


def int8_folder(run: plan.Run) -> Path:
    """Returns the folder of the INT8 artifact of a run."""
    return run.folder.parent / f"{run.name}-int8"


def quantize(run: plan.Run) -> None:
    """Quantizes the model of a run."""
    texts, labels = training_rows(run.task, TRAINED)[1]
    rows = Rows(texts, labels, source=f"{run.task}, rows of the pool")
    SweetQuantizer.from_pretrained(run.folder).quantize(rows, int8_folder(run), "static", rows=OBSERVED)


def of_task(task: str, runs: dict[int, dict[str, plan.Run]]) -> dict[str, Any]:
    """Measures the curves of every precision, method and seed, in milliseconds per row."""
    texts, labels = read_task(task, "validation")
    metric = METRICS[plan.METRIC.get(task, "accuracy")]
    costs: dict[tuple[bool, str], RowCosts] = {}
    curves: dict[str, dict[str, list]] = {FLOAT32: {}, INT8: {}}
    for run in (run for of_seed in runs.values() for run in of_seed.values()):
        cascade = run.method == plan.MULTI_MODEL
        for precision in (FLOAT32,) if cascade else (FLOAT32, INT8):
            folder = run.folder if precision == FLOAT32 else int8_folder(run)
            model = SweetModelForSequenceClassification.from_pretrained(folder)
            batch = model.read(texts, MAX_LENGTH)
            kind = (cascade, precision)
            if kind not in costs:  # depends on the architecture only
                costs[kind] = measure_costs(model, batch, (BATCH,), "max_probability").of(batch.lengths, BATCH)
            points = curve(ExitOutcomes.observe(model, batch, labels), costs[kind], metric)
            curves[precision].setdefault(run.method, []).append(points)
    full = {
        precision: round(float(each.through[:, -1].mean()), 5)
        for (cascade, precision), each in costs.items()
        if not cascade
    }
    return {"rows": len(labels), "seeds": list(runs), "full": full, "curves": curves}


def curve(outcomes: ExitOutcomes, costs: RowCosts, metric: Any) -> list[list[float]]:
    """Returns mean milliseconds and score for a range of max-probability thresholds, one for all exits."""
    policy = Policy.uniform(len(outcomes.exits))
    points = []
    for threshold in thresholds_between(outcomes.confidences(policy)[:, :-1], POINTS):
        swept = policy.with_threshold(threshold)
        milliseconds = costs.under(swept, outcomes.leaving(swept)).mean()
        points.append([round(float(milliseconds), 5), round(metric(outcomes.answers(swept), outcomes.labels), 5)])
    return points


if __name__ == "__main__":
    main()
