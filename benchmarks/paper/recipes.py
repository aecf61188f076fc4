"""The figures of training recipes as Markdown: on the pool, which chose, and on the rows that are reported."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from record import RESULTS, foot

from paper.paired import Found, complete, mean_and_error, p_value
from paper.pictures import SHARES, by_layers
from paper.plan import EVERY_METHOD, NAMES, RECIPE, SEEDS, TASKS

BASELINES = ("multi-model", "joint", "sweet")


def on_the_pool(found: Found) -> str:
    """Every method by task on pool rows: exits, area, and the last exit beside the plain fine-tuning's."""
    exits = next(iter(found.values()))["settings"]["exits"]
    heads = " | ".join(f"exit {exit_}" for exit_ in exits)
    lines = [f"| task | method | runs | {heads} | area | last exit against plain |", "|---" * (len(exits) + 5) + "|"]
    for task in TASKS:
        methods = [method for method in EVERY_METHOD if any((task, method, seed) in found for seed in SEEDS)]
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


def prototypes() -> str:
    """What was tried in prototypes, first trials first."""
    paths = (RESULTS / f"recipes_{which}_trials.json" for which in ("first", "second", "third"))
    return "\n\n".join(_of_prototypes(json.loads(path.read_text())) for path in paths if path.is_file())


def _of_prototypes(result: dict[str, Any]) -> str:
    lines = ["| | exit 1 | exit 2 | exit 4 | exit 6 | area |", "|---|---|---|---|---|---|"]
    for name, run in result["runs"].items():
        cells = ["–"] * (4 - len(run["score"])) + [f"{score:.1f}" for score in run["score"]]
        area = f"{run['area']:.2f}" if "area" in run else "–"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {area} |")
    return "\n".join([result["what"], "", *lines, "", foot(result)])
