"""Renders speed–accuracy curves in measured time as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np
from record import footer

from paper.pictures import by_time
from paper.plan import NAMES, RECIPE
from paper.recipes import BASELINES


def areas(result: dict[str, Any]) -> str:
    """Renders the area under the curve by time, of float32 and INT8."""
    tasks = result["tasks"]
    lines = ["| method | " + " | ".join((*tasks, "mean")) + " |", "|---" * (len(tasks) + 2) + "|"]
    for precision in ("float32", "int8"):
        for method in dict.fromkeys(method for task in tasks.values() for method in task["curves"][precision]):
            values = [_area_by_clock(of_task, precision, method) for of_task in tasks.values()]
            cells = " | ".join(f"{value:.1f}" for value in (*values, np.mean(values)))
            lines.append(f"| {NAMES[method]}, {'INT8' if precision == 'int8' else precision} | {cells} |")
    seeds = sorted({seed for of_task in tasks.values() for seed in of_task["seeds"]})
    full = "; ".join(f"{task} {', '.join(f'{ms:.2f}' for ms in tasks[task]['full'].values())}" for task in tasks)
    intro = (
        "**By the clock**: the score averaged over budgets of milliseconds from everyone leaving at the first exit to "
        f"full depth without exits (ms a row in float32 and INT8: {full}), native engine, batches of "
        f"{result['settings']['batch']}, mean over seeds {', '.join(map(str, seeds))}. Cascades are not quantized."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def _area_by_clock(of_task: dict[str, Any], precision: str, method: str) -> float:
    curves, full = of_task["curves"][precision], of_task["full"][precision]
    budgets = np.linspace(min(cost for curve in curves["sweet"] for cost, _ in curve), full, 51)
    return 100 * np.mean([np.interp(budgets, *np.array(sorted(curve)).T).mean() for curve in curves[method]])


def minimum_gains(timed: dict[str, Any]) -> str:
    """Renders the minimum difference in score between the recipe and the best of the paper's methods over time, for
    all seeds and for each.
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
    return "\n".join([intro, "", *lines, "", footer(timed)])


def _all_have(tasks: dict[str, Any], seeds: list[int]) -> bool:
    return len(seeds) > 1 and all(results["seeds"] == seeds for results in tasks.values())


def _of_seed(tasks: dict[str, Any], place: int) -> dict[str, Any]:
    """Selects the curves of one seed."""
    return {
        task: {
            **results,
            "curves": {
                precision: {method: [each[place]] for method, each in curves.items()}
                for precision, curves in results["curves"].items()
            },
        }
        for task, results in tasks.items()
    }
