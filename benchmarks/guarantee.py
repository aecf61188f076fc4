"""Coverage of the guarantees of `itrex-sweet calibrate`, and their cost, over many draws of calibration rows.

    python benchmarks/guarantee.py --tasks sst2 qnli ag_news

Uses the INT8 artifacts of `quantize_recipes.py` in `benchmarks/runs`. The population of a task is its rows that were
neither trained on nor used for quantization. Calibration rows are drawn from it with replacement, so that the true loss
of a policy is its mean over the population. Logits are computed once per task, on the native engine.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from record import FIRST_HELD_OUT_ROW, RUNS, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification, criteria
from itrex_sweet.calibration.bounds import LossCounts, certified, paired_p_value
from itrex_sweet.calibration.calibrate import TUNING_SHARE
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.calibration.guarantees import MetricGuarantee, PairedPredictions
from itrex_sweet.calibration.search import candidate_policies
from itrex_sweet.calibration.temperature import fit_temperature
from itrex_sweet.evaluation.outcomes import outputs_at_every_exit, predictions_from_logits
from itrex_sweet.metrics import METRICS
from itrex_sweet.policy import Policy

EPSILONS, DELTAS = (0.005, 0.01, 0.02), (0.05, 0.1)
METRIC = "matthews"  # for the approximate test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news", "mnli", "cola"])
    parser.add_argument("--rows", type=int, default=3000, help="calibration rows, drawn with replacement")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--most", type=int, default=8000, help="maximum rows of a population")
    parser.add_argument("--recipe", default="static")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("rows", "draws", "most", "recipe")}
    result: dict[str, Any] = {**provenance(), "settings": settings, "tasks": {}}
    for task in options.tasks:
        result["tasks"][task] = measured(task, options)
        print(task, result["tasks"][task], flush=True)
        path = write_result("guarantee", result)
    print(path)


def measured(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures the share of draws whose policy exceeds ε, and the layers it runs, for every ε and δ."""
    model = SweetModelForSequenceClassification.from_pretrained(RUNS / task / f"int8-{options.recipe}-default")
    logits, labels = population(task, model, options)
    layers = np.asarray(model.artifact.layers_run, dtype=np.float64)
    predictions, all_rows = predictions_from_logits(logits), np.arange(len(labels))
    correct = predictions == labels[:, None]
    losses = correct[:, -1:].astype(int) - correct.astype(int)
    random = np.random.default_rng(0)
    outcomes: dict[tuple[float, float, str], list[tuple[float, float]]] = {}
    for _ in range(options.draws):
        rows = random.integers(0, len(labels), options.rows)
        tuning, testing = np.split(rows, [round(options.rows * TUNING_SHARE)])
        policy = with_temperatures(logits[tuning], labels[tuning])
        confidences = criteria.confidence_at_every_exit(policy, logits, confidence_of=model.backend.confidence)
        costs = RowCosts.from_layers(layers, len(tuning))
        candidates = candidate_policies(policy, confidences[tuning], losses[tuning], costs, epsilon=max(EPSILONS))
        leaving = [criteria.leaving_exit(each, confidences) for each in candidates]
        true = [of_policy(losses, layers, each) for each in leaving]
        seen = [LossCounts.of(losses[testing, each[testing]]) for each in leaving]
        answers = [predictions[all_rows, each] for each in leaving]
        for epsilon in EPSILONS:
            p_values = metric_p_values(epsilon, answers, predictions[:, -1], labels, testing)
            drops = [metric_drop(each, predictions[:, -1], labels) for each in answers]
            for delta in DELTAS:
                by_metric = certified(p_values, delta)
                outcomes.setdefault((epsilon, delta, METRIC), []).append((drops[by_metric], true[by_metric][1]))
                passed = certified([paired_p_value(counts, epsilon) for counts in seen[1:]], delta)
                plug_in = certified([0.0 if counts.mean_loss <= epsilon else 1.0 for counts in seen[1:]], delta)
                outcomes.setdefault((epsilon, delta, "promise"), []).append(true[passed])
                outcomes.setdefault((epsilon, delta, "plug-in"), []).append(true[plug_in])
            within = [layer for loss, layer in true if loss <= epsilon]
            outcomes.setdefault((epsilon, 0.0, "oracle"), []).append((0.0, min(within)))
    cells = []
    for epsilon in EPSILONS:
        oracle = float(np.mean([layer for _, layer in outcomes[epsilon, 0.0, "oracle"]]))
        for delta in DELTAS:
            cell: dict[str, Any] = {"epsilon": epsilon, "delta": delta, "oracle_layers": round(oracle, 3)}
            for kind in ("promise", "plug-in", METRIC):
                loss, run = (np.array(part) for part in zip(*outcomes[epsilon, delta, kind], strict=True))
                exceeded = float((loss > epsilon).mean())
                cell[kind] = {
                    "exceeded": exceeded,
                    "interval": wilson(exceeded, len(loss)),
                    "layers": round(float(run.mean()), 3),
                    "beyond_full_depth": round(float((run < layers[-1]).mean()), 3),
                    "mean_loss": round(float(loss.mean()), 5),
                }
            cells.append(cell)
    return {
        "population": len(labels),
        "full_layers": float(layers[-1]),
        "accuracy_per_exit": np.round(100 * correct.mean(0), 2).tolist(),
        "cells": cells,
    }


def metric_p_values(
    epsilon: float, answers: list[np.ndarray], full: np.ndarray, labels: np.ndarray, testing: np.ndarray
) -> list[float]:
    """Computes p-values of the policies after full depth, up to the first that no δ certifies."""
    metric_guarantee, p_values = MetricGuarantee(epsilon, max(DELTAS), METRIC), []
    for each in answers[1:]:
        p_values.append(metric_guarantee.p_value(PairedPredictions(each[testing], full[testing], labels[testing])))
        if p_values[-1] > max(DELTAS):
            break
    return p_values


def metric_drop(answers: np.ndarray, full: np.ndarray, labels: np.ndarray) -> float:
    """Returns the true drop of the metric."""
    return METRICS[METRIC](full, labels) - METRICS[METRIC](answers, labels)


def population(task: str, model: Any, options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Computes logits (rows, exits, labels) and labels of held-out rows, cached for the next run."""
    cache = RUNS / task / f"population-{options.recipe}-{options.most}.npz"
    if cache.is_file():
        stored = np.load(cache)
        return stored["logits"], stored["labels"]
    texts, labels = read_task(task, "train_20k")
    more_texts, more_labels = read_task(task, "validation")
    texts, labels = texts[FIRST_HELD_OUT_ROW:] + more_texts, labels[FIRST_HELD_OUT_ROW:] + more_labels
    places = np.random.default_rng(0).permutation(len(labels))[: options.most]
    batch = model.read([texts[place] for place in places], 128)
    logits, truth = outputs_at_every_exit(model.executor, batch, task)[0], np.asarray(labels)[places]
    np.savez(cache, logits=logits, labels=truth)
    return logits, truth


def with_temperatures(logits: np.ndarray, labels: np.ndarray) -> Policy:
    temperatures = tuple(fit_temperature(logits[:, place], labels) for place in range(logits.shape[1]))
    return Policy((1.0,) * (len(temperatures) - 1), temperatures)


def of_policy(losses: np.ndarray, layers: np.ndarray, leaving: np.ndarray) -> tuple[float, float]:
    """Returns the true mean loss and mean layers of a policy."""
    return float(losses[np.arange(len(losses)), leaving].mean()), float(layers[leaving].mean())


def wilson(share: float, count: int, z: float = 1.96) -> list[float]:
    """Returns the 95 % confidence interval of a proportion (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return [round(max(0.0, middle - half), 4), round(middle + half, 4)]


if __name__ == "__main__":
    main()
