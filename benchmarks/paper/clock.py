"""Speed–accuracy curves in measured time of the available models: float32 and INT8 on the native engine.

    python benchmarks/paper/clock.py --prepare                # quantizes the models that are not quantized yet
    python benchmarks/paper/clock.py                          # measures, on an idle machine
    python benchmarks/paper/clock.py --methods decoupled      # the models of `benchmarks/decoupled/run.py` alone

Both print the expected duration first. The time of a row to each exit is measured by `itrex_sweet.calibration.costs`,
per task, precision and architecture, in batches of 32; the exits of rows come from the logits of each seed's model on
the validation rows. The cheapest threshold that has 99 % of the score of the plain fine-tuning is then timed on these
rows, in turns with the same model at full depth. Seeds that lack the model of a method are left out. Cascades are not
quantized. A task that is measured again replaces the stored one.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from decoupled.artifacts import FOLDER, float32_artifact
from record import RESULTS, check_idle_machine, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.calibration.cost_measurement import measure_costs
from itrex_sweet.calibration.costs import RowCosts
from itrex_sweet.data import Rows
from itrex_sweet.evaluation.curve import thresholds_between
from itrex_sweet.evaluation.outcomes import ExitOutcomes
from itrex_sweet.evaluation.timing import milliseconds_per_row, sample_rows
from itrex_sweet.metrics import METRICS
from itrex_sweet.policy import Policy
from paper import plan
from paper.run import MAX_LENGTH, POINTS, TRAINED, training_rows

BATCH, OBSERVED = 32, 200
SHARE = 0.99  # of the score of the plain fine-tuning
TIMED_ROWS, REPEATS = 1024, 5
FLOAT32, INT8 = "float32", "int8"
MINUTES_TO_QUANTIZE = 0.5
MINUTES_TO_TIME = 0.8, 0.7  # per task, and per seed
METHODS = (plan.MULTI_MODEL, "sweet", "joint", plan.RECIPE)
FILES = {"paper": "paper_clock", "decoupled": "decoupled_clock"}


@dataclass(frozen=True)
class Model:
    """A trained model.

    Args:
        folder: the float32 artifact, or the cascade of Multi-Model.
        int8: folder of the INT8 artifact, `None` for a cascade.
        plain_score: score of the plain fine-tuning; `None` for decoupled exits, whose last exit has it.
    """

    task: str
    method: str
    folder: Path
    int8: Path | None
    plain_score: float | None

    @property
    def kind(self) -> str:
        """Name of the architecture, which determines the cost of rows."""
        return {plan.MULTI_MODEL: "cascade", plan.DECOUPLED: "private layers"}.get(self.method, "shared layers")

    @property
    def folders(self) -> dict[str, Path]:
        """The folders by precision."""
        return {FLOAT32: self.folder} if self.int8 is None else {FLOAT32: self.folder, INT8: self.int8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=plan.SEEDS)
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, plan.DECOUPLED), default=METHODS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="runs of benchmarks/decoupled")
    parser.add_argument("--prepare", action="store_true", help="quantize only")
    options = parser.parse_args()
    models = {
        task: {
            seed: of_seed for seed in options.seeds if (of_seed := trained(task, seed, options.methods, options.folder))
        }
        for task in options.tasks
    }
    models = {task: seeds for task, seeds in models.items() if seeds}
    to_quantize = [
        model
        for seeds in models.values()
        for of_seed in seeds.values()
        for model in of_seed
        if model.int8 is not None and not model.int8.is_dir()
    ]
    minutes = MINUTES_TO_QUANTIZE * len(to_quantize)
    if not options.prepare:
        minutes += sum(MINUTES_TO_TIME[0] + MINUTES_TO_TIME[1] * len(seeds) for seeds in models.values())
    print(f"{len(models)} tasks, {len(to_quantize)} models to quantize: some {minutes:.0f} minutes.", flush=True)
    for model in to_quantize:
        quantize(model)
    if options.prepare:
        return
    name = FILES["decoupled" if tuple(options.methods) == (plan.DECOUPLED,) else "paper"]
    path = RESULTS / f"{name}.json"
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.is_file() else {}
    for task, seeds in models.items():
        check_idle_machine()
        tasks[task] = of_task(task, seeds)
        in_order = {each: tasks[each] for each in plan.TASKS if each in tasks}
        write_result(name, {**provenance(), "settings": {"batch": BATCH, "share": SHARE}, "tasks": in_order})
        print(task, tasks[task]["full"], tasks[task]["cheapest"], flush=True)
    if models:
        print(path)


def trained(task: str, seed: int, methods: list[str], folder: Path) -> list[Model]:
    """Returns the reported model of every method, or nothing if one is missing."""
    models = []
    for method in methods:
        if method == plan.DECOUPLED:
            run = folder / f"{task}-{seed}"
            if not (run / "plain").is_dir():
                return []
            models.append(Model(task, method, float32_artifact(run), run / INT8, None))
            continue
        run, plain = plan.reported(task, method, seed), plan.reported(task, plan.MULTI_MODEL, seed)
        if run is None or plain is None or not run.folder.is_dir():
            return []
        int8 = None if method == plan.MULTI_MODEL else run.folder.parent / f"{run.name}-int8"
        models.append(Model(task, method, run.folder, int8, plain.read()["validation"]["score"][-1]))
    return models


def quantize(model: Model) -> None:
    """Writes the INT8 artifact of a model."""
    texts, labels = training_rows(model.task, TRAINED)[1]
    rows = Rows(texts, labels, source=f"{model.task}, rows of the pool")
    SweetQuantizer.from_pretrained(model.folder).quantize(rows, model.int8, "static", rows=OBSERVED)


def of_task(task: str, models: dict[int, list[Model]]) -> dict[str, Any]:
    """Measures every precision, method and seed of a task.

    Returns:
        `full`: milliseconds per row at full depth without exits, by precision. `curves`: precision → method → points of
        each seed. `plain`: method → score of the plain fine-tuning of each seed. `cheapest`: precision → method →
        figures of the cheapest threshold of each seed, or `None`.
    """
    texts, labels = read_task(task, "validation")
    metric = METRICS[plan.METRIC.get(task, "accuracy")]
    costs: dict[tuple[str, str], RowCosts] = {}
    curves: dict[str, dict[str, list]] = {FLOAT32: {}, INT8: {}}
    cheapest: dict[str, dict[str, list]] = {FLOAT32: {}, INT8: {}}
    plain: dict[str, list[float]] = {}
    for model in (model for of_seed in models.values() for model in of_seed):
        plain_score = model.plain_score
        for precision, folder in model.folders.items():
            loaded = SweetModelForSequenceClassification.from_pretrained(folder)
            batch = loaded.read(texts, MAX_LENGTH)
            kind = (model.kind, precision)
            if kind not in costs:
                costs[kind] = measure_costs(loaded, batch, (BATCH,), "max_probability").of(batch.lengths, BATCH)
            outcomes = ExitOutcomes.observe(loaded, batch, labels)
            if plain_score is None:
                plain_score = float(metric(outcomes.predictions()[:, -1], outcomes.labels))
            points = list(sweep(outcomes, costs[kind], metric))
            curves[precision].setdefault(model.method, []).append(
                [[round(milliseconds, 5), round(score, 5)] for _, milliseconds, score in points]
            )
            found = None if model.int8 is None else cheapest_policy(points, SHARE * plain_score)
            cheapest[precision].setdefault(model.method, []).append(
                None if found is None else timed(loaded, batch, outcomes, found, metric)
            )
        plain.setdefault(model.method, []).append(round(plain_score, 5))
    full: dict[str, float] = {}
    for (kind, precision), each in costs.items():
        if kind != "cascade":
            full.setdefault(precision, round(float(each.through[:, -1].mean()), 5))
    return {
        "rows": len(labels),
        "seeds": list(models),
        "full": full,
        "plain": plain,
        "curves": curves,
        "cheapest": cheapest,
    }


def sweep(outcomes: ExitOutcomes, costs: RowCosts, metric: Any) -> Iterator[tuple[Policy, float, float]]:
    """Yields policies with one max-probability threshold for all exits, with mean milliseconds per row and score."""
    policy = Policy.uniform(len(outcomes.exits))
    for threshold in thresholds_between(outcomes.confidences(policy)[:, :-1], POINTS):
        swept = policy.with_threshold(threshold)
        milliseconds = costs.under(swept, outcomes.leaving(swept)).mean()
        yield swept, float(milliseconds), float(metric(outcomes.answers(swept), outcomes.labels))


def cheapest_policy(points: list[tuple[Policy, float, float]], minimum: float) -> Policy | None:
    """Returns the policy of the fewest milliseconds with at least this score, or `None`."""
    found = [(milliseconds, place) for place, (_, milliseconds, score) in enumerate(points) if score >= minimum]
    return points[min(found)[1]][0] if found else None


def timed(
    model: SweetModelForSequenceClassification, batch: Any, outcomes: ExitOutcomes, policy: Policy, metric: Any
) -> dict[str, float]:
    """Measures a policy in turns with full depth, which probes no exit, on at most `TIMED_ROWS` rows."""
    rows = sample_rows(batch, TIMED_ROWS)
    no_early_exit = Policy.uniform(len(outcomes.exits)).with_threshold(1.0)
    policies = {"full": no_early_exit, "policy": policy}
    milliseconds = milliseconds_per_row(
        {name: functools.partial(model.executor.run, rows, each, BATCH) for name, each in policies.items()},
        len(rows),
        REPEATS,
    )
    return {
        "threshold": round(float(max(policy.thresholds)), 6),
        "score": round(float(metric(outcomes.answers(policy), outcomes.labels)), 5),
        "layers": round(outcomes.mean_layers(policy), 4),
        "milliseconds": round(milliseconds["policy"], 5),
        "milliseconds full": round(milliseconds["full"], 5),
    }


if __name__ == "__main__":
    main()
