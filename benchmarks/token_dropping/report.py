"""Renders the tables of `docs/benchmarks/token-dropping.md`."""

from __future__ import annotations

from typing import Any

import numpy as np
from paper import plan
from record import footer

LAYERS, TIME = "token-layers", "time, batch 32"
SHOWN = 0.01  # ε
NAMES = {"long": "long texts"}


def sections(result: dict[str, Any]) -> list[str]:
    """Returns the tables of a stored result."""
    return [
        bounds(result),
        at_full_depth(result),
        combined(result),
        more(result, "prototype"),
        more(result, "grid"),
        times(result) + "\n\n" + footer(result),
    ]


def bounds(result: dict[str, Any]) -> str:
    """Renders the factor of each shape if dropping changed no answer."""
    tasks = _in_order(result["bounds"])
    shapes = list(next(iter(tasks.values()))[LAYERS][str(SHOWN)]["factors"])
    lines = [
        "| task | tokens | certified cost with all tokens | " + " | ".join(shapes) + " |",
        "|---" * (3 + len(shapes)) + "|",
    ]
    for task, each in tasks.items():
        layers, time = (each[unit][str(SHOWN)] for unit in (LAYERS, TIME))
        factors = (f"{layers['factors'][shape]:.2f}, **{time['factors'][shape]:.2f}**" for shape in shapes)
        lines.append(
            f"| {task} | {each['tokens']} | {_percent(layers['all tokens'])}, {_percent(time['all tokens'])} | "
            + " | ".join(factors)
            + " |"
        )
    means = [
        ", ".join(
            mark + f"{np.mean([each[unit][str(SHOWN)]['factors'][shape] for each in tasks.values()]):.2f}" + mark
            for unit, mark in ((LAYERS, ""), (TIME, "**"))
        )
        for shape in shapes
    ]
    lines.append("| mean | | | " + " | ".join(means) + " |")
    return (
        "**Upper bounds: dropping that changes no answer.** The cost of the policy certified at ε = 1 % on rows of the "
        "training pool, as a share of full depth's, in token-layers and in time; and how many times cheaper the "
        "certified policy becomes if a share of the tokens is kept before a layer and all logits stay as they are "
        "(token-layers, **time**). Choosing and copying tokens is free. Where nothing is certified, the factor is "
        "1.\n\n"
    ) + "\n".join(lines)


def at_full_depth(result: dict[str, Any]) -> str:
    """Renders accuracy and agreement of each schedule without early exit."""
    tasks = _in_order(result["accuracy"])
    schedules = list(next(iter(tasks.values()))["full depth"])
    lines = [
        "| tokens kept | " + " | ".join(NAMES.get(task, task) for task in tasks) + " |",
        "|---" * (1 + len(tasks)) + "|",
    ]
    for schedule in schedules:
        cells = []
        for each in tasks.values():
            figures = each["full depth"][schedule]
            cost = figures["cost"]
            cell = f"{100 * figures['accuracy']:.1f}"
            if schedule != "none":
                cell += f", {100 * figures['agreement']:.1f}; {cost[LAYERS]:.2f}, {cost[TIME]:.2f}"
            cells.append(cell)
        lines.append(f"| {'all' if schedule == 'none' else schedule} | " + " | ".join(cells) + " |")
    rows = ", ".join(f"{NAMES.get(task, task)} {each['rows']['validation']}" for task, each in tasks.items())
    tokens = ", ".join(f"{NAMES.get(task, task)} {each['tokens']['validation']:.0f}" for task, each in tasks.items())
    return (
        "**Full depth, no early exit**: accuracy and agreement with all tokens, in percent; token-layers and time, as "
        f"shares of those of all tokens. Validation rows: {rows}; mean tokens: {tokens}.\n\n"
    ) + "\n".join(lines)


def combined(result: dict[str, Any]) -> str:
    """Renders policies with and without schedules among the candidates, combined with early exit."""
    lines = [
        "| texts | choice | all tokens: accuracy, agreement; cost | with dropping: accuracy, agreement; cost | factor "
        "| tokens kept |",
        "|---|---|---|---|---|---|",
    ]
    factors: dict[tuple[str, str], list[float]] = {}
    for task, each in _in_order(result["accuracy"]).items():
        for unit in (LAYERS, TIME):
            for kind in ("observed", "certified"):
                every, dropped = (
                    each["combined"][unit][str(SHOWN)][f"{kind}, {among}"] for among in ("all tokens", "with schedules")
                )
                factor = every["cost"] / dropped["cost"]
                if task in plan.TASKS:
                    factors.setdefault((unit, kind), []).append(factor)
                schedule = "all" if dropped["schedule"] == "none" else dropped["schedule"]
                lines.append(
                    f"| {NAMES.get(task, task)} | {kind}, {unit} | {_figures(every)} | {_figures(dropped)} "
                    f"| {factor:.2f} | {schedule} |"
                )
    lines += [
        f"| mean of {len(each)} tasks | {kind}, {unit} | | | **{np.mean(each):.2f}** | |"
        for (unit, kind), each in factors.items()
    ]
    return (
        "**Combined with early exit**, at most one point of accuracy lost. Thresholds, and with dropping the schedule, "
        "are chosen on rows of the pool: the cheapest whose observed loss is within the budget, or the cheapest that "
        "is certified (δ = 0.05). Accuracy, agreement with full depth on all tokens, and cost as a share of full "
        "depth's, on validation rows, in percent.\n\n"
    ) + "\n".join(lines)


def more(result: dict[str, Any], part: str) -> str:
    """Renders other schedules at full depth."""
    sections_ = []
    for task, each in _in_order(result.get(part, {})).items():
        lines = ["| tokens kept | accuracy | agreement | token-layers | time |", "|---|---|---|---|---|"]
        for schedule, figures in each["full depth"].items():
            name = "all" if schedule == "none" else schedule
            lines.append(
                f"| {name} | {100 * figures['accuracy']:.2f} | {100 * figures['agreement']:.1f} | "
                f"{figures['cost'][LAYERS]:.2f} | {figures['cost'][TIME]:.2f} |"
            )
        sections_.append(
            f"**Other schedules on {task}**, full depth, the first {each['rows']['validation']} validation rows.\n\n"
            + "\n".join(lines)
        )
    return "\n\n".join(sections_)


def times(result: dict[str, Any]) -> str:
    """Renders the measured time per layer by length."""
    table = result["times"]["batch"]
    lengths = table["32"]["lengths"]
    lines = [
        "| milliseconds per row | " + " | ".join(f"{length:.0f} tokens" for length in lengths) + " |",
        "|---" * (1 + len(lengths)) + "|",
    ]
    for size in ("32", "1"):
        for part, name in (("first", "embeddings and exit 1"), ("layer", "one layer"), ("probe", "each further exit")):
            lines.append(
                f"| batch {size}: {name} | " + " | ".join(f"{value:.3f}" for value in table[size][part]) + " |"
            )
    return (
        f"**Time by length**, the native engine in INT8, {table['threads']} threads, rows of equal length.\n\n"
    ) + "\n".join(lines)


def _in_order(found: dict[str, Any]) -> dict[str, Any]:
    return {task: found[task] for task in (*plan.TASKS, "long") if task in found}


def _figures(figures: dict[str, Any]) -> str:
    return f"{100 * figures['accuracy']:.1f}, {100 * figures['agreement']:.1f}; {_percent(figures['cost'])}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
