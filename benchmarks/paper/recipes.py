"""The figures of training recipes as Markdown: on the pool, which chose, and on the rows that are reported."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
from record import RESULTS, foot

from paper.paired import Found, complete, mean_and_error, p_value
from paper.pictures import SHARES, by_layers, by_time
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
    "opening": "0.01, 0.03, 0.1 at first, in the end 0.1, 0.3, 1",
    "cut-first": "the first cut, without the plain stage",
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
    "after-cut-first+held": "the recipe, layer 1's hidden states held to the plain model's",
    "after-cut-first+adapters": "the recipe, an adapter of 64 units at every exit but the last",
    "after-cut-first+earlier": "the recipe, exits that see the logits of the one before",
}


def on_the_pool(found: Found) -> str:
    """Every method by task on pool rows: exits, area, and the last exit beside the plain fine-tuning's."""
    exits = next(iter(found.values()))["settings"]["exits"]
    heads = " | ".join(f"exit {exit_}" for exit_ in exits)
    lines = [f"| task | method | runs | {heads} | area | last exit against plain |", "|---" * (len(exits) + 5) + "|"]
    for task in TASKS:
        methods = [method for method in METHODS_SHOWN if any((task, method, seed) in found for seed in SEEDS)]
        for method in methods if RECIPE in methods else ():
            runs = {seed: found[task, method, seed] for seed in SEEDS if (task, method, seed) in found}
            scores = 100 * np.mean([run["pool"]["score"] for run in runs.values()], axis=0)
            area = 100 * np.mean([run["pool"]["area"] for run in runs.values()])
            lost = [
                run["pool"]["score"][-1] - found[task, "multi-model", seed]["pool"]["score"][-1]
                for seed, run in runs.items()
                if (task, "multi-model", seed) in found
            ]
            cells = " | ".join(f"{score:.1f}" for score in scores)
            lines.append(
                f"| {task} | {NAMES.get(method, method)} | {len(runs)} | {cells} | {area:.2f} "
                f"| {100 * np.mean(lost):+.1f} |"
            )
    intro = (
        "**On rows of the training pool** that nothing was trained on, in percent (CoLA: Matthews correlation). Area: "
        "the score averaged over budgets of layers from one to the full depth. Multi-Model's last exit is the plain "
        "fine-tuning."
    )
    return "\n".join([intro, "", *lines])


def on_validation(found: Found) -> str:
    """The recipe beside the paper's methods."""
    pairs = complete(found, (*BASELINES, RECIPE))
    exits = next(iter(found.values()))["settings"]["exits"]
    heads = " | ".join(f"exit {exit_}" for exit_ in exits)
    lines = [f"| method | {heads} | area | worst against the best of the three |", "|---" * (len(exits) + 3) + "|"]
    curves = {
        method: np.array([by_layers(found[task, method, seed]) for task, seed in pairs])
        for method in (*BASELINES, RECIPE)
    }
    best = 100 * np.max([curves[method].mean(0) for method in BASELINES], axis=0)
    for method, curve in curves.items():
        scores = 100 * np.mean([found[task, method, seed]["validation"]["score"] for task, seed in pairs], axis=0)
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
    return "\n".join([intro, "", *lines, "", foot(max(found.values(), key=lambda result: result["date"]))])


def in_pairs(found: Found) -> str:
    """What the recipe gains on each of the paper's methods, run by run."""
    pairs = complete(found, (*BASELINES, RECIPE))
    lines = ["| recipe over | area | p | first exit | last exit | p |", "|---" * 6 + "|"]
    for method in BASELINES:
        gains = {
            what: np.array([100 * (of(found[t, RECIPE, s]) - of(found[t, method, s])) for t, s in pairs])
            for what, of in (
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


def layers_for_99_percent(found: Found) -> str:
    """What share of the layers suffices for 99 % of plain fine-tuning's score."""
    tasks = [task for task in TASKS if any((task, RECIPE, seed) in found for seed in SEEDS)]
    lines = ["| method | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method in (*BASELINES, RECIPE):
        cells = []
        for task in tasks:
            shares = [
                cheapest(found[task, method, seed], 0.99 * found[task, "multi-model", seed]["validation"]["score"][-1])
                for seed in SEEDS
                if (task, method, seed) in found and (task, "multi-model", seed) in found
            ]
            cells.append(_mean_of_reached(shares))
        lines.append(f"| {NAMES.get(method, method)} | " + " | ".join(cells) + " |")
    intro = (
        "**Share of the layers run at 99 % of plain fine-tuning's score**, the cheapest threshold on validation that "
        "has it, mean over seeds; in brackets how many have one, where not all do. (A threshold has to be chosen on "
        "other rows: `itrex-sweet calibrate`.)"
    )
    return "\n".join([intro, "", *lines])


def _mean_of_reached(shares: list[float | None]) -> str:
    reached = [share for share in shares if share is not None]
    if not reached:
        return "–"
    return f"{np.mean(reached):.0%}" + (f" ({len(reached)} of {len(shares)})" if len(reached) < len(shares) else "")


def cheapest(run: dict[str, Any], least: float) -> float | None:
    """Share of the depth of the cheapest threshold that scores so much; `None` if none does."""
    points = run["validation"]["curves"]["max_probability"]
    costs = np.array(points)[:, :-1] @ np.array(run["layers_run"], dtype=float) / run["settings"]["exits"][-1]
    return min((cost for cost, point in zip(costs, points, strict=True) if point[-1] >= least), default=None)


def cost() -> str:
    """Time of a training step, and memory, beside plain fine-tuning."""
    path = RESULTS / "training_cost.json"
    if not path.is_file():
        return ""
    result = json.loads(path.read_text())
    shapes, settings = result["shapes"], result["settings"]
    lines = [
        "| | " + " | ".join(f"{shape}: time | memory" for shape in shapes) + " |",
        "|---" * (2 * len(shapes) + 1) + "|",
    ]
    for way in next(iter(shapes.values())):
        cells = []
        for ways in shapes.values():
            plain = next(iter(ways.values()))
            cells += [
                f"{ways[way]['milliseconds']['median'] / plain['milliseconds']['median']:.2f}",
                f"{ways[way]['megabytes'] / plain['megabytes']:.2f}",
            ]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    plain = "; ".join(
        f"{shape} {ways['plain fine-tuning']['milliseconds']['median'] / 1000:.2f} s and "
        f"{ways['plain fine-tuning']['megabytes'] / 1000:.2f} GB"
        for shape, ways in shapes.items()
    )
    intro = (
        f"**What a training step costs**, against plain fine-tuning ({plain}): {settings['rows']} rows of "
        f"{settings['tokens']} tokens, bfloat16, {settings['threads']} threads; all ways in turns, memory in processes "
        f"of their own; medians of {settings['repeats']} rounds, of which a tenth is noise. A teacher is asked about "
        "every row once; the figure is that of the first epoch."
    )
    return "\n".join([intro, "", *lines, "", foot(result)])


def trials() -> str:
    """What was tried and did not become the recipe, beside it and the paper's methods, all at one learning rate."""
    tables = [_trials_of(seed) for seed in SEEDS]
    intro = (
        f"**Trials**, learning rate {TRIED_AT:g} for all, on rows of the training pool, in percent: exits "
        "1/2/4/6, and the area. One run each, of which half a point is noise."
    )
    return "\n\n".join([intro, *(table for table in tables if table)])


def _trials_of(seed: int) -> str:
    found = {
        (task, method, epochs): result
        for task, method, epochs in itertools.product(TASKS, TRIED, EPOCHS_TRIED)
        if (result := Run(task, method, seed, TRIED_AT, epochs=epochs).read())
    }
    tasks = [task for task in TASKS if any(key[0] == task and key[1] not in METHODS_SHOWN for key in found)]
    if not tasks:
        return ""
    lines = [f"| seed {seed} | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 1) + "|"]
    for method, epochs in itertools.product(TRIED, EPOCHS_TRIED):
        results = [found.get((task, method, epochs)) for task in tasks]
        if any(results):
            how_long = {EPOCHS: "", 1: ", 1 epoch"}.get(epochs, f", {epochs} epochs")
            cells = " | ".join(_exits_and_area(result) if result else "–" for result in results)
            lines.append(f"| {TRIED[method]}{how_long} (`{method}`) | {cells} |")
    return "\n".join([*lines, "", foot(max(found.values(), key=lambda result: result["date"]))])


def _exits_and_area(result: dict[str, Any]) -> str:
    pool = result["pool"]
    return "/".join(f"{100 * score:.1f}" for score in pool["score"]) + f", {100 * pool['area']:.2f}"


def by_the_clock(timed: dict[str, Any]) -> str:
    """Where the recipe's curve is least above the best of the paper's methods, in measured time: of all seeds, and of
    each alone.
    """
    tasks = timed["tasks"]
    seeds = next(iter(tasks.values()))["seeds"]
    lines = ["| | worst against the best of the others | at this share of the time |", "|---|---|---|"]
    for precision, curves in next(iter(tasks.values()))["curves"].items():
        methods = [method for method in BASELINES if method in curves]
        for seed in (None, *(seeds if _all_have(tasks, seeds) else ())):
            these = tasks if seed is None else _of_seed(tasks, seeds.index(seed))
            shares, height = by_time(these, precision, RECIPE)
            others = [by_time(these, precision, method, shares)[1] for method in methods]
            behind = 100 * (height - np.max(others, axis=0))
            place = int(behind.argmin())
            shown = ("INT8" if precision == "int8" else precision) + ("" if seed is None else f", seed {seed} alone")
            lines.append(f"| {shown} | {behind[place]:+.1f} | {shares[place]:.0%} |")
    intro = (
        "**By the clock**, validation rows: the recipe against the best of the paper's methods at every share of the "
        "time that float32 takes to full depth, native engine, mean over the tasks and seeds of "
        "[`paper.md`](paper.md)'s table. Cascades are not quantized."
    )
    return "\n".join([intro, "", *lines, "", foot(timed)])


def _all_have(tasks: dict[str, Any], seeds: list[int]) -> bool:
    return len(seeds) > 1 and all(found["seeds"] == seeds for found in tasks.values())


def _of_seed(tasks: dict[str, Any], place: int) -> dict[str, Any]:
    """The same with one seed's curves."""
    return {
        task: {
            **found,
            "curves": {
                precision: {method: [each[place]] for method, each in curves.items()}
                for precision, curves in found["curves"].items()
            },
        }
        for task, found in tasks.items()
    }
