"""Renders the results of the two-stage recipe as Markdown: on the training pool and on validation rows."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
from record import RESULTS, footer

from paper import store
from paper.paired import Results, complete, mean_and_error, p_value
from paper.pictures import SHARES, by_layers
from paper.plan import EPOCHS, METHODS, NAMES, RECIPE, SEEDS, TASKS, Run

BASELINES = ("multi-model", "joint", "sweet")
METHODS_SHOWN = (*METHODS, RECIPE)
TRIED_AT = 1e-4
EPOCHS_TRIED = (1, EPOCHS, 4)
TRIED = {
    **{method: NAMES[method] for method in BASELINES},
    "sweet+0.1": "a tenth of the gradient through every cut",
    "sweet+0.1+teacher": "a tenth, seven tenths of the loss from the plain model",
    "graded": "0.1, 0.3, 1 through the cuts",
    "opening": "from 0.01, 0.03, 0.1 to 0.1, 0.3, 1 through the cuts",
    "cut-first": "cut after the first exit, without the plain stage",
    RECIPE: "the recipe",
    "after-0": "after plain: nothing through any cut",
    "after-0.1": "after plain: a tenth through every cut",
    "after-0.1+teacher": "after plain: a tenth, seven tenths of the loss from the plain model",
    "after-0.3": "after plain: three tenths through every cut",
    "after-0.3+teacher": "after plain: three tenths, seven tenths of the loss from the plain model",
    "after-graded": "after plain: 0.1, 0.3, 1 through the cuts",
    "after-cut-graded": "after plain: 0, 0.3, 1 through the cuts",
    "after-0.01-first": "after plain: 0.01, 1, 1 through the cuts",
    "after-joint": "after plain: no cut",
    "after-cut-first+teacher": "the recipe, seven tenths of the loss from the plain model",
    "after-cut-first+agreement": "the recipe, seven tenths of the loss from the last exit",
    "after-cut-first+first-x2": "the recipe, first segment at twice the rate",
    "after-cut-first+first-x2-others-half": "the recipe, first segment at twice the rate, the others at half",
    "after-cut-first+heads-x10": "the recipe, heads at ten times the rate",
    "after-cut-first+held": "the recipe, layer 1 regularized towards the plain model",
    "after-cut-first+adapters": "the recipe, an adapter of 64 units at every exit but the last",
    "after-cut-first+earlier": "the recipe, exits with the logits of the previous exit as input",
}

# Titles of the rows of `cost`, by name in the result.
_SETTINGS = {
    "decoupled, exits alone": 'decoupled, `train="exits"`',
    "sweet, graph kept whole": "sweet, without early backward",
    "cut_first, and a teacher": "cut_first with a teacher",
}


def on_the_pool(results: Results) -> str:
    """Renders every method by task on pool rows: exits, area, and the last exit relative to plain fine-tuning."""
    exits = next(iter(results.values()))["settings"]["exits"]
    heads = " | ".join(f"exit {exit_}" for exit_ in exits)
    lines = [f"| task | method | runs | {heads} | area | last exit against plain |", "|---" * (len(exits) + 5) + "|"]
    for task in TASKS:
        methods = [method for method in METHODS_SHOWN if any((task, method, seed) in results for seed in SEEDS)]
        for method in methods if RECIPE in methods else ():
            runs = {seed: results[task, method, seed] for seed in SEEDS if (task, method, seed) in results}
            scores = 100 * np.mean([run["pool"]["score"] for run in runs.values()], axis=0)
            area = 100 * np.mean([run["pool"]["area"] for run in runs.values()])
            differences = [
                run["pool"]["score"][-1] - results[task, "multi-model", seed]["pool"]["score"][-1]
                for seed, run in runs.items()
                if (task, "multi-model", seed) in results
            ]
            cells = " | ".join(f"{score:.1f}" for score in scores)
            lines.append(
                f"| {task} | {NAMES.get(method, method)} | {len(runs)} | {cells} | {area:.2f} "
                f"| {100 * np.mean(differences):+.1f} |"
            )
    intro = (
        "**On rows of the training pool** that nothing was trained on, in percent (CoLA: Matthews correlation). Area: "
        "the score averaged over budgets of layers from one to the full depth. Multi-Model's last exit is the plain "
        "fine-tuning."
    )
    return "\n".join([intro, "", *lines])


def on_validation(results: Results) -> str:
    """Renders the recipe beside the paper's methods."""
    pairs = complete(results, (*BASELINES, RECIPE))
    exits = next(iter(results.values()))["settings"]["exits"]
    heads = " | ".join(f"exit {exit_}" for exit_ in exits)
    lines = [f"| method | {heads} | area | worst against the best of the three |", "|---" * (len(exits) + 3) + "|"]
    curves = {
        method: np.array([by_layers(results[task, method, seed]) for task, seed in pairs])
        for method in (*BASELINES, RECIPE)
    }
    best = 100 * np.max([curves[method].mean(0) for method in BASELINES], axis=0)
    for method, curve in curves.items():
        scores = 100 * np.mean([results[task, method, seed]["validation"]["score"] for task, seed in pairs], axis=0)
        behind = 100 * curve.mean(0) - best
        place = int(behind.argmin())
        cells = " | ".join(f"{score:.1f}" for score in scores)
        lines.append(
            f"| {NAMES.get(method, method)} | {cells} | {100 * curve.mean():.2f} "
            f"| {behind[place]:+.1f} at {SHARES[place]:.0%} of the layers |"
        )
    tasks = sorted({task for task, _ in pairs}, key=TASKS.index)
    intro = (
        f"**On validation rows**, mean of {len(pairs)} runs a method ({', '.join(tasks)}; seeds "
        f"{', '.join(map(str, sorted({seed for _, seed in pairs})))}), in percent."
    )
    return "\n".join([intro, "", *lines, "", footer(max(results.values(), key=lambda result: result["date"]))])


def in_pairs(results: Results) -> str:
    """Renders paired differences between the recipe and the paper's methods."""
    pairs = complete(results, (*BASELINES, RECIPE))
    lines = ["| recipe over | area | p | first exit | last exit | p |", "|---" * 6 + "|"]
    for method in BASELINES:
        gains = {
            name: np.array([100 * (of(results[t, RECIPE, s]) - of(results[t, method, s])) for t, s in pairs])
            for name, of in (
                ("area", lambda run: np.mean(by_layers(run))),
                ("first", lambda run: run["validation"]["score"][0]),
                ("last", lambda run: run["validation"]["score"][-1]),
            )
        }
        lines.append(
            f"| {NAMES[method]} | {mean_and_error(gains['area'])} | {p_value(gains['area'])} "
            f"| {mean_and_error(gains['first'])} | {mean_and_error(gains['last'])} | {p_value(gains['last'])} |"
        )
    intro = (
        f"**In pairs**: mean difference of the {len(pairs)} runs with the same task and seed, in points, ± its "
        "standard error. p: of an exact two-sided test that flips the signs of these pairs. Multi-Model's last exit "
        "is the plain fine-tuning."
    )
    return "\n".join([intro, "", *lines])


def layers_for_99_percent(results: Results) -> str:
    """Renders the share of the layers needed for 99 % of the score of plain fine-tuning."""
    tasks = [task for task in TASKS if any((task, RECIPE, seed) in results for seed in SEEDS)]
    lines = ["| method | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method in (*BASELINES, RECIPE):
        cells = []
        for task in tasks:
            shares = [
                cheapest(
                    results[task, method, seed], 0.99 * results[task, "multi-model", seed]["validation"]["score"][-1]
                )
                for seed in SEEDS
                if (task, method, seed) in results and (task, "multi-model", seed) in results
            ]
            cells.append(_mean_share(shares))
        lines.append(f"| {NAMES.get(method, method)} | " + " | ".join(cells) + " |")
    intro = (
        "**Share of the layers run at 99 % of plain fine-tuning's score**, the cheapest threshold on validation that "
        "reaches it, mean over seeds; in brackets the number of seeds with such a threshold, if not all. (In use, "
        "choose thresholds on other rows: `itrex-sweet calibrate`.)"
    )
    return "\n".join([intro, "", *lines])


def _mean_share(shares: list[float | None]) -> str:
    available = [share for share in shares if share is not None]
    if not available:
        return "–"
    count = f" ({len(available)} of {len(shares)})" if len(available) < len(shares) else ""
    return f"{np.mean(available):.0%}{count}"


def cheapest(run: dict[str, Any], minimum: float) -> float | None:
    """Returns the share of the depth of the cheapest threshold with at least this score, or `None`."""
    points = run["validation"]["curve"]
    costs = np.array(points)[:, :-1] @ np.array(run["layers_run"], dtype=float) / run["settings"]["exits"][-1]
    return min((cost for cost, point in zip(costs, points, strict=True) if point[-1] >= minimum), default=None)


def cost() -> str:
    """Renders time and memory of a training step, relative to plain fine-tuning."""
    path = RESULTS / "training_cost.json"
    if not path.is_file():
        return ""
    result = json.loads(path.read_text())
    shapes, settings = result["shapes"], result["settings"]
    lines = [
        "| | " + " | ".join(f"{shape}: time | memory" for shape in shapes) + " |",
        "|---" * (2 * len(shapes) + 1) + "|",
    ]
    for way in max(shapes.values(), key=len):
        cells = []
        for ways in shapes.values():
            plain = next(iter(ways.values()))
            cells += (
                [
                    f"{ways[way]['milliseconds']['median'] / plain['milliseconds']['median']:.2f}",
                    f"{ways[way]['megabytes'] / plain['megabytes']:.2f}",
                ]
                if way in ways
                else ["–", "–"]
            )
        lines.append(f"| {_SETTINGS.get(way, way)} | " + " | ".join(cells) + " |")
    plain = "; ".join(
        f"{shape} {ways['plain fine-tuning']['milliseconds']['median'] / 1000:.2f} s and "
        f"{ways['plain fine-tuning']['megabytes'] / 1000:.2f} GB"
        for shape, ways in shapes.items()
    )
    intro = (
        f"**What a training step costs**, against plain fine-tuning ({plain}): {settings['rows']} rows of "
        f"{settings['tokens']} tokens, bfloat16, {settings['threads']} threads; interleaved runs, memory in separate "
        f"processes; medians of {settings['repeats']} rounds, which vary by a tenth. Decoupled exits are "
        'after the default layers of the shape, or after every layer; with `train="exits"` the model is '
        "frozen. A teacher predicts each row once; the figure is that of the first epoch."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def trials() -> str:
    """Renders rejected trials beside the recipe and the paper's methods, all at one learning rate."""
    tables = [_trials_of(seed) for seed in SEEDS]
    intro = (
        f"**Trials**, learning rate {TRIED_AT:g} for all, on rows of the training pool, in percent: exits "
        "1/2/4/6, and the area. One run each; half a point is within noise."
    )
    return "\n\n".join([intro, *(table for table in tables if table)])


def _trials_of(seed: int) -> str:
    stored = {**store.read(store.TRIALS), **store.read()}
    results = {
        (task, method, epochs): result
        for task, method, epochs in itertools.product(TASKS, TRIED, EPOCHS_TRIED)
        if (result := stored.get(Run(task, method, seed, TRIED_AT, epochs=epochs).name))
    }
    tasks = [task for task in TASKS if any(key[0] == task and key[1] not in METHODS_SHOWN for key in results)]
    if not tasks:
        return ""
    lines = [f"| seed {seed} | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method, epochs in itertools.product(TRIED, EPOCHS_TRIED):
        row = [results.get((task, method, epochs)) for task in tasks]
        if any(row):
            suffix = {EPOCHS: "", 1: ", 1 epoch"}.get(epochs, f", {epochs} epochs")
            cells = " | ".join(_exits_and_area(result) if result else "–" for result in row)
            lines.append(f"| {TRIED[method]}{suffix} (`{method}`) | {cells} |")
    return "\n".join([*lines, "", footer(max(results.values(), key=lambda result: result["date"]))])


def _exits_and_area(result: dict[str, Any]) -> str:
    pool = result["pool"]
    return "/".join(f"{100 * score:.1f}" for score in pool["score"]) + f", {100 * pool['area']:.2f}"
