"""Renders speed–accuracy curves in measured time as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np
from record import footer

from paper.pictures import by_time
from paper.plan import MULTI_MODEL, NAMES, RECIPE, TASKS, reported
from paper.recipes import BASELINES

PRECISIONS = {"float32": "float32", "int8": "INT8"}


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
        "**By measured time**: the score averaged over budgets of milliseconds from all rows leaving at the first exit "
        f"to full depth without exits (ms a row in float32 and INT8: {full}), native engine, batches of "
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
    lines = ["| | minimum difference from the best other method | at this share of the time |", "|---|---|---|"]
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
        "**By measured time**, validation rows: the recipe minus the best of the paper's methods at every share of the "
        "time of full depth in float32, native engine, mean over the tasks and seeds of "
        "[`paper.md`](paper.md)'s table. Cascades are not quantized."
    )
    return "\n".join([intro, "", *lines, "", footer(timed)])


def cheapest(*results: dict[str, Any] | None) -> str:
    """Renders the time at 99 % of plain fine-tuning's score as a share of the time of full depth.

    Args:
        results: measurements of `clock.py`, of different methods; `None` for those that are not available.
    """
    available = [result for result in results if result is not None]
    if not available:
        return ""
    tasks = [task for task in TASKS if any(task in result["tasks"] for result in available)]
    lines = ["| method | | " + " | ".join((*tasks, "mean")) + " |", "|---" * (len(tasks) + 3) + "|"]
    for result in available:
        first = next(iter(result["tasks"].values()))
        for precision, curves in first["curves"].items():
            for method in curves:
                shares = {task: _shares(task, of_task, precision, method) for task, of_task in result["tasks"].items()}
                lines.append(_row(f"{NAMES[method]}, {PRECISIONS[precision]}", "predicted", tasks, shares))
                timed = {
                    task: _timed_shares(of_task, precision, method)
                    for task, of_task in result["tasks"].items()
                    if "cheapest" in of_task and of_task["cheapest"][precision].get(method)
                }
                if timed and method != MULTI_MODEL:
                    lines.append(_row("", "timed", tasks, timed))
    share = available[-1]["settings"].get("share", 0.99)
    intro = (
        f"**Time at {100 * share:.0f} % of plain fine-tuning's score**, as a share of the time that the same model "
        "takes at full depth without exits, in the same run and precision, with the cheapest single threshold for all "
        "exits on the validation rows (`itrex-sweet calibrate` chooses one per exit, on other rows). The score of "
        "plain fine-tuning is that of float32 in both precisions. Predicted: from the measured cost of a row at each "
        "exit; timed: rows run with this threshold, in turns with full depth. Mean over seeds "
        f"({'; '.join(_seeds_of(result) for result in available)}); a run without such a threshold counts as 100 %, "
        "and the number of those is in brackets. The methods were measured in different runs, so their shares can be "
        "compared and their milliseconds cannot."
    )
    return "\n".join([intro, "", *lines, "", *(f"{_methods_of(each)}: {footer(each)}" for each in available)])


def _shares(task: str, of_task: dict[str, Any], precision: str, method: str) -> list[float | None]:
    """Returns the share of each seed by the table of costs; `None` without a threshold that has the score."""
    full, shares = of_task["full"][precision], []
    for place, (seed, curve) in enumerate(zip(of_task["seeds"], of_task["curves"][precision][method], strict=True)):
        if "plain" in of_task:
            plain = of_task["plain"][method][place]
        else:
            plain = reported(task, MULTI_MODEL, seed).read()["validation"]["score"][-1]
        shares.append(min((cost / full for cost, score in curve if score >= 0.99 * plain), default=None))
    return shares


def _timed_shares(of_task: dict[str, Any], precision: str, method: str) -> list[float | None]:
    return [
        None if each is None else each["milliseconds"] / each["milliseconds full"]
        for each in of_task["cheapest"][precision][method]
    ]


def _row(name: str, kind: str, tasks: list[str], shares: dict[str, list[float | None]]) -> str:
    cells, means = [], []
    for task in tasks:
        if task not in shares:
            cells.append("–")
            continue
        missed = sum(share is None for share in shares[task])
        means.append(float(np.mean([1.0 if share is None else share for share in shares[task]])))
        cells.append(f"{means[-1]:.0%}" + (f" ({missed} of {len(shares[task])})" if missed else ""))
    return f"| {name} | {kind} | {' | '.join(cells)} | {np.mean(means):.0%} |"


def _methods_of(result: dict[str, Any]) -> str:
    first = next(iter(result["tasks"].values()))
    return ", ".join(NAMES[method] for method in first["curves"]["float32"])


def _seeds_of(result: dict[str, Any]) -> str:
    """Describes the seeds of a measurement, task by task where they differ."""
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for task, of_task in result["tasks"].items():
        by_seeds.setdefault(tuple(of_task["seeds"]), []).append(task)
    listed = [
        f"{', '.join(map(str, seeds))}" + (f" for {', '.join(names)}" if len(by_seeds) > 1 else "")
        for seeds, names in by_seeds.items()
    ]
    return f"{_methods_of(result)}: {', and '.join(listed)}"


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
