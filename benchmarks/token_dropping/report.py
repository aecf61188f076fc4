"""Renders the tables of `docs/benchmarks/token-dropping.md`."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from record import footer

from token_dropping.schedules import candidates

LAYERS, TIME = "token-layers", "time, batch 32"
SHOWN = 0.01  # ε
TASKS = ("cola", "rte", "sst2", "mnli", "qnli", "ag_news")
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
    long = {name: each["bounds"] for name, each in result["accuracy"].items() if name not in TASKS}
    tasks = {**_in_order(result["bounds"]), **long}
    shapes = list(next(iter(tasks.values()))[LAYERS][str(SHOWN)]["factors"])
    lines = [
        "| task | tokens | certified cost with all tokens | " + " | ".join(shapes) + " |",
        "|---" * (3 + len(shapes)) + "|",
    ]
    for task, each in tasks.items():
        layers, time = (each[unit][str(SHOWN)] for unit in (LAYERS, TIME))
        factors = (f"{layers['factors'][shape]:.2f}, **{time['factors'][shape]:.2f}**" for shape in shapes)
        lines.append(
            f"| {NAMES.get(task, task)} | {each['tokens']} "
            f"| {_percent(layers['all tokens'])}, {_percent(time['all tokens'])} | " + " | ".join(factors) + " |"
        )
    means = []
    for shape in shapes:
        factors = {
            unit: np.mean([tasks[task][unit][str(SHOWN)]["factors"][shape] for task in tasks if task in TASKS])
            for unit in (LAYERS, TIME)
        }
        means.append(f"{factors[LAYERS]:.2f}, **{factors[TIME]:.2f}**")
    lines.append("| mean of the tasks | | | " + " | ".join(means) + " |")
    return (
        "**Upper bounds: dropping that changes no answer.** The cost of the policy certified at ε = 1 % on rows of the "
        "training pool, as a share of full depth's, in token-layers and in time; and how many times cheaper the "
        "certified policy becomes if a share of the tokens is kept before a layer and all logits stay as they are "
        "(token-layers, **time**). Choosing and copying tokens is free. Where nothing is certified (RTE has "
        "too few rows), the factor is 1. The policy of the long texts is chosen by the observed loss.\n\n"
    ) + "\n".join(lines)


def at_full_depth(result: dict[str, Any]) -> str:
    """Renders accuracy and agreement of each schedule without early exit, of the tasks and of the long texts."""
    tasks = _in_order(result["accuracy"])
    long = {name: tasks.pop(name) for name in list(tasks) if name not in TASKS}
    rows = ", ".join(f"{task} {each['rows']['validation']}" for task, each in tasks.items())
    text = (
        "**Full depth, no early exit**: accuracy and agreement with all tokens, in percent; token-layers and time at "
        f"batch 32, as shares of those of all tokens. Validation rows: {rows}.\n\n{_full_depth_table(tasks)}"
    )
    for each in long.values():
        text += (
            f"\n\nThe same for {each['rows']['validation']} long texts, {each['tokens']['validation']:.0f} tokens in "
            f"the mean.\n\n{_full_depth_table({'long texts': each})}"
        )
    return text


def _full_depth_table(found: dict[str, Any]) -> str:
    lines = [
        "| tokens kept | " + " | ".join(found) + " |",
        "|---" * (1 + len(found)) + "|",
    ]
    for schedule in next(iter(found.values()))["full depth"]:
        cells = []
        for each in found.values():
            figures = each["full depth"][schedule]
            cell = f"{100 * figures['accuracy']:.1f}"
            if schedule != "none":
                cost = figures["cost"]
                cell += f", {100 * figures['agreement']:.1f}; {cost[LAYERS]:.2f}, {cost[TIME]:.2f}"
            cells.append(cell)
        lines.append(f"| {'all' if schedule == 'none' else schedule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def combined(result: dict[str, Any]) -> str:
    """Renders policies with and without schedules among the candidates, combined with early exit."""
    lines = [
        "| texts | choice | all tokens: accuracy, agreement; cost | with dropping: accuracy, agreement; cost | factor "
        "| tokens kept |",
        "|---|---|---|---|---|---|",
    ]
    factors: dict[tuple[str, str], list[float]] = {}
    for task, each in _in_order(result["combined"]).items():
        for kind, epsilon in itertools.product(("observed", "certified"), each):
            if f"{kind}, all tokens" not in each[epsilon]:
                continue  # too few rows
            every, dropped = (each[epsilon][f"{kind}, {among}"] for among in ("all tokens", "with schedules"))
            factor = every["cost"] / dropped["cost"]
            if task in TASKS:
                factors.setdefault((kind, epsilon), []).append(factor)
            schedules = (
                f"{'all' if name == 'none' else name}" + (f" ({_percent(share, 0)})" if share < 1 else "")
                for name, share in dropped["schedules"].items()
            )
            lines.append(
                f"| {NAMES.get(task, task)} | {kind}, ε = {_percent(float(epsilon), 0)} | {_figures(every)} "
                f"| {_figures(dropped)} | {factor:.2f} | {', '.join(schedules)} |"
            )
    lines += [
        f"| mean of {len(each)} tasks | {kind}, ε = {_percent(float(epsilon), 0)} | | | **{np.mean(each):.2f}** | |"
        for (kind, epsilon), each in factors.items()
    ]
    return (
        "**Combined with early exit.** Thresholds, and with dropping one of "
        f"{_shown_candidates()}, are chosen on rows of the pool: the cheapest whose observed loss of accuracy is at "
        "most ε, or the cheapest that is certified (δ = 0.05), the mean of ten splits into rows that order the "
        "candidates and rows that test them. Accuracy, agreement with full depth on all tokens, and "
        "time at batch 32 as a share of full depth's, on validation rows, in percent. Rows of the pool: "
        + ", ".join(
            f"{NAMES.get(task, task)} {each['rows']['pool']}"
            for task, each in result["accuracy"].items()
            if task in result["combined"]
        )
        + ".\n\n"
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
    return {task: found[task] for task in (*TASKS, "long") if task in found}


def _figures(figures: dict[str, Any]) -> str:
    return f"{100 * figures['accuracy']:.1f}, {100 * figures['agreement']:.1f}; {_percent(figures['cost'])}"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _shown_candidates() -> str:
    names = [each.name for each in candidates()]
    return f"`{'`, `'.join(names)}` or all tokens"
