"""Coverage of the guarantees of `itrex-sweet calibrate` for multi-label and regression models.

    python benchmarks/tasks/guarantee.py

Uses the artifacts of `train.py`. The population of a data set is its held-out rows. Calibration rows are drawn from it
with replacement, so that the true loss of a policy is its mean over the population. A row is lost in agreement if its
set of labels differs from that at full depth, or its value by more than the tolerance; in accuracy, if it is correct at
full depth only. Logits are computed once, on the native engine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from guarantee import wilson
from record import RESULTS, RUNS, provenance, write_result
from tasks.corpora import NEWS, RATING, TOPICS, corpus
from tasks.train import MAX_LENGTH

from itrex_sweet import SweetModelForSequenceClassification, criteria
from itrex_sweet.calibration.bounds import binomial_p_value, certified
from itrex_sweet.calibration.calibrate import TUNING_SHARE
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.counts import LossCounts
from itrex_sweet.calibration.guarantees import exit_losses
from itrex_sweet.calibration.paired_test import exact_paired_p_value
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.calibration.temperature import as_binary, fit_temperature
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.metrics import METRICS
from itrex_sweet.policy import Policy

EPSILONS, DELTA = (0.01, 0.02), 0.05
TOLERANCES = {NEWS: None, TOPICS: None, RATING: 0.5}  # a tenth of the range of the values
LOSSES = ("agreement", "accuracy")
RESULT = "task_guarantee"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=[NEWS, TOPICS, RATING], choices=[NEWS, TOPICS, RATING])
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    parser.add_argument("--rows", type=int, default=2000, help="calibration rows, drawn with replacement")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--population", type=int, default=6000, help="held-out rows")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("rows", "draws", "population")}
    for name in options.corpora:
        found = measured(name, options)
        print(name, found, flush=True)
        # Results of other data sets with the same settings are kept.
        path = RESULTS / f"{RESULT}.json"
        old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        tasks = old["tasks"] if old.get("settings") == settings else {}
        write_result(RESULT, {**provenance(), "settings": settings, "tasks": {**tasks, name: found}})


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures the metrics of every exit, and for every loss and ε the share of draws whose policy exceeds ε."""
    model = SweetModelForSequenceClassification.from_pretrained(RUNS / name / "decoupled-0")
    outcomes = population(name, model, options.population)
    exits = [
        {
            each: round(METRICS[each](outcomes.predictions()[:, place], outcomes.labels), 4)
            for each in outcomes.task.metrics
        }
        for place in range(len(outcomes.exits))
    ]
    cells = [cell for kind in options.losses for cell in cells_of(outcomes, kind, TOLERANCES[name], options)]
    return {
        "population": len(outcomes),
        "tolerance": TOLERANCES[name],
        "exits": list(outcomes.exits),
        "metrics_per_exit": exits,
        "agreement_per_exit": np.round(1 - losses_of(outcomes, "agreement", TOLERANCES[name]).mean(0), 4).tolist(),
        "cells": cells,
    }


def cells_of(
    outcomes: ExitOutcomes, kind: str, tolerance: float | None, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Calibrates on every draw, and compares the true loss of each certified policy with ε."""
    losses = losses_of(outcomes, kind, tolerance)
    layers = np.asarray(outcomes.layers_run, dtype=np.float64)
    test = binomial_p_value if kind == "agreement" else exact_paired_p_value
    random, found = np.random.default_rng(0), {epsilon: [] for epsilon in EPSILONS}
    every = np.arange(len(outcomes))
    for _ in range(options.draws):
        rows = random.integers(0, len(outcomes), options.rows)
        tuning, testing = np.split(rows, [round(options.rows * TUNING_SHARE)])
        policy = policy_for(outcomes, tuning, tolerance)
        confidences = outcomes.confidences(policy)
        costs = RowCosts.from_layers(layers, len(tuning))
        candidates = candidate_policies(policy, confidences[tuning], losses[tuning], costs, epsilon=max(EPSILONS))
        leaving = [criteria.leaving_exit(each, confidences) for each in candidates]
        for epsilon in EPSILONS:
            # Lazily: the sequence of tests ends with the first candidate that is not rejected.
            number = 0
            for each in leaving[1:]:
                p_value = test(LossCounts.of(losses[testing, each[testing]]), epsilon)
                if not certified([p_value], DELTA):
                    break
                number += 1
            chosen = leaving[number]
            answers = outcomes.predictions()[every, chosen]
            metrics = [METRICS[metric](answers, outcomes.labels) for metric in outcomes.task.metrics]
            found[epsilon].append((losses[every, chosen].mean(), layers[chosen].mean(), *metrics))
    cells = []
    for epsilon, draws in found.items():
        loss, run, *metrics = np.array(draws).T
        exceeded = float((loss > epsilon).mean())
        cells.append(
            {
                "loss": kind,
                "epsilon": epsilon,
                "delta": DELTA,
                "exceeded": exceeded,
                "interval": wilson(exceeded, len(loss)),
                "layers": round(float(run.mean()), 3),
                "full_layers": float(layers[-1]),
                "certified_beyond_full_depth": round(float((run < layers[-1]).mean()), 3),
                "mean_loss": round(float(loss.mean()), 5),
                "metrics": {
                    each: round(float(values.mean()), 4)
                    for each, values in zip(outcomes.task.metrics, metrics, strict=True)
                },
            }
        )
    return cells


def losses_of(outcomes: ExitOutcomes, kind: str, tolerance: float | None) -> np.ndarray:
    labels = None if kind == "agreement" else outcomes.labels
    return exit_losses(outcomes.predictions(), labels, None, outcomes.task, tolerance)


def policy_for(outcomes: ExitOutcomes, tuning: np.ndarray, tolerance: float | None) -> Policy:
    """Returns a policy with the temperatures of the tuning rows."""
    task, num_exits = outcomes.task, len(outcomes.exits)
    temperatures = (1.0,) * num_exits
    if task.has_temperatures:
        temperatures = tuple(
            fit_temperature(*as_binary(outcomes.logits[tuning, place], outcomes.labels[tuning]))
            for place in range(num_exits)
        )
    thresholds = (1.0,) * (num_exits - 1)
    return Policy(thresholds, temperatures, task.default_criterion, task=task.name, tolerance=tolerance)


def population(name: str, model: SweetModelForSequenceClassification, rows: int) -> ExitOutcomes:
    """Computes the outputs of every exit for held-out rows, cached for the next run."""
    cache = RUNS / name / f"population-{rows}.npz"
    held_out = corpus(name, rows, held_out=True)
    if not cache.is_file():
        outputs = model.executor.outputs_at_every_exit(model.read(held_out.texts, MAX_LENGTH))
        np.savez(cache, outputs=outputs)
    logits, correctness = criteria.split_outputs(np.load(cache)["outputs"], model.backend.num_labels)
    labels = held_out.labels if name == RATING else held_out.labels.astype(np.int64)
    artifact = model.artifact
    return ExitOutcomes(
        logits, labels, artifact.exits, artifact.layers_run, correctness, model.backend.confidence, artifact.task
    )


if __name__ == "__main__":
    main()
