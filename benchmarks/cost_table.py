"""How near the cost table of `calibrate` comes to the clock: predicted over measured mean time of policies.

    python benchmarks/cost_table.py --tasks sst2 qnli ag_news cola

On the INT8 artifacts that `quantize_recipes.py` left in `benchmarks/runs`. A table is made on calibration rows, then
policies from full depth to the boldest are timed on other rows, one text at a time and in batches of 32; both several
times in alternation, since a machine that others use changes its pace. The ratios' medians count, their range is shown.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
from record import RUNS, held_out_rows, measure, provenance, read_task, refuse_busy_machine, write_result

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.guarantees import exit_losses
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.config import Policy
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.timing import sample_rows

SIZES = (1, 32)
POLICIES = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news", "cola"])
    parser.add_argument("--calibration-rows", type=int, default=1000)
    parser.add_argument("--timed-rows", type=int, default=800)
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--recipe", default="static")
    options = parser.parse_args()
    names = ("calibration_rows", "timed_rows", "alternations", "recipe")
    settings = {name: getattr(options, name) for name in names}
    result: dict[str, Any] = {**provenance(), "settings": settings, "tasks": {}}
    for task in options.tasks:
        refuse_busy_machine()
        result["tasks"][task] = of_task(task, options)
        print(task, result["tasks"][task], flush=True)
        path = write_result("cost_table", result)
    print(path)


def of_task(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Per batch size: predicted and measured milliseconds and their ratios, a column per policy."""
    model = SweetModelForSequenceClassification.from_pretrained(RUNS / task / f"int8-{options.recipe}-default")
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
    said: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    taken: dict[int, list[list[float]]] = {size: [] for size in SIZES}
    for _ in range(options.alternations):
        table = measure_costs(model, batch, SIZES, "max_probability")
        clock = measure(pairs, 1, len(timed))
        for size in SIZES:
            said[size].append(predicted(table.of(timed.lengths, size), policies, seen))
            taken[size].append([clock[size, policy]["median"] for policy in policies])
    return {f"batch {size}": summary(np.array(said[size]), np.array(taken[size])) for size in SIZES}


def some_policies(outcomes: ExitOutcomes, policy: Policy) -> list[Policy]:
    """From full depth to the boldest, by layers, so that they do not depend on a table."""
    costs = RowCosts.from_layers(outcomes.layers_run, len(outcomes))
    losses = exit_losses(outcomes.predictions(), outcomes.labels)
    found = candidate_policies(policy, outcomes.confidences(policy), losses, costs)
    return [found[place] for place in sorted({*np.linspace(0, len(found) - 1, POLICIES).astype(int).tolist()})]


def predicted(costs: RowCosts, policies: list[Policy], seen: ExitOutcomes) -> list[float]:
    return [float(costs.under(policy, seen.leaving(policy)).mean()) for policy in policies]


def summary(said: np.ndarray, taken: np.ndarray) -> dict[str, Any]:
    """Of (alternations, policies)."""
    ratios = said / taken
    return {
        "measured": np.round(np.median(taken, axis=0), 4).tolist(),
        "predicted": np.round(np.median(said, axis=0), 4).tolist(),
        "ratio": np.round(np.median(ratios, axis=0), 3).tolist(),
        "least": np.round(ratios.min(axis=0), 3).tolist(),
        "most": np.round(ratios.max(axis=0), 3).tolist(),
    }


if __name__ == "__main__":
    main()
