"""Draws the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from paper.paired import Results, complete
from paper.plan import DECOUPLED, LABELS_ALONE, METHODS, NAMES, RECIPE, SEEDS, TASKS
from paper.run import at_budgets

COLOURS = {
    "sweet": "#0072B2",
    "paper": "#56B4E9",
    "joint": "#D55E00",
    "multi-model": "#009E73",
    RECIPE: "#000000",
    DECOUPLED: "#CC79A7",
    LABELS_ALONE: "#882255",
}
SHARES = np.linspace(1 / 6, 1.0, 26)  # of the depth


def scores(results: Results, path: Path) -> None:
    """Draws the score of every exit: a panel per task, a line per method."""
    tasks = [task for task in TASKS if any(key[0] == task for key in results)]
    figure, panels = _panels(len(tasks))
    for panel, task in zip(panels, tasks, strict=True):
        exits = next(result for key, result in results.items() if key[0] == task)["settings"]["exits"]
        for method in METHODS:
            runs = [results[task, method, seed] for seed in SEEDS if (task, method, seed) in results]
            table = 100 * np.array([run["validation"]["score"] for run in runs])
            if runs:
                spread = table.std(0, ddof=1) if len(table) > 1 else None
                panel.errorbar(exits, table.mean(0), spread, color=COLOURS[method], marker="o", label=NAMES[method])
        panel.set_title(task)
        panel.set_xlabel("exit, layers")
        panel.set_xticks(exits)
    panels[0].set_ylabel("score, %")
    _finish(figure, panels, path)


def curves(results: Results, path: Path, methods: tuple[str, ...] = METHODS) -> None:
    """Draws score over layers run, averaged over the tasks and seeds that every method has."""
    drawn = [method for method in methods if any(key[1] == method for key in results)]
    shared = complete(results, drawn)
    figure, panels = _panels(1, width=6.4)
    for method in drawn:
        heights = [by_layers(results[task, method, seed]) for task, seed in shared]
        if heights:
            panels[0].plot(SHARES, 100 * np.mean(heights, axis=0), color=COLOURS[method], label=NAMES[method])
    panels[0].set_xlabel("layers run, share of the depth (Multi-Model: cumulative)")
    panels[0].set_ylabel("score, %")
    panels[0].set_title(f"mean of {len(shared)} runs per method")
    _finish(figure, panels, path, columns=2)


def by_layers(result: dict[str, Any]) -> np.ndarray:
    """Returns the validation score at each of `SHARES` of the layers."""
    depth = result["settings"]["exits"][-1]
    return at_budgets(result["validation"]["curve"], result["layers_run"], SHARES * depth)


def clock(tasks: dict[str, Any], path: Path) -> None:
    """Draws score over time, relative to full depth in float32, averaged over tasks and seeds; INT8 dashed."""
    figure, panels = _panels(1, width=6.4)
    for precision, style in (("float32", "-"), ("int8", "--")):
        for method in dict.fromkeys(method for found in tasks.values() for method in found["curves"][precision]):
            shares, height = by_time(tasks, precision, method)
            label = NAMES[method] if precision == "float32" else None
            panels[0].plot(shares, 100 * height, style, color=COLOURS[method], label=label)
    panels[0].set_xlabel("time, share of the full depth's in float32 (dashed: INT8)")
    runs = sum(len(found["seeds"]) for found in tasks.values())
    panels[0].set_ylabel("score, %")
    panels[0].set_title(f"mean of {runs} runs per method")
    _finish(figure, panels, path, columns=2)


def by_time(
    tasks: dict[str, Any], precision: str, method: str, shares: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns shares of the time of full depth in float32, and a method's mean score at each.

    By default they range from the minimum for which every task has a policy to full depth, or to the method's slowest
    policy.
    """
    points = [
        np.array(sorted(curve)).T / [[found["full"]["float32"]], [1.0]]
        for found in tasks.values()
        for curve in found["curves"][precision][method]
    ]
    if shares is None:
        maximum = max(times[-1] for times, _ in points)
        shares = np.linspace(max(times[0] for times, _ in points), min(maximum, 1.0), 60)
    return shares, np.mean([np.interp(shares, *each) for each in points], axis=0)


def conflict(results: Results, path: Path) -> None:
    """Draws heat maps of gradient conflict: layers by pairs of exits."""
    pairs = exit_pairs(results)
    measured: dict[str, list[dict[str, list[float]]]] = {}
    for (_, method, _), result in results.items():
        if result["gradient_conflict"]:
            measured.setdefault(method, []).append(result["gradient_conflict"]["cosines"])
    figure, panels = _panels(len(measured), width=3.2)
    for panel, (method, runs) in zip(panels, measured.items(), strict=True):
        depth = max(len(values) for values in runs[0].values())
        table = np.full((depth, len(pairs)), np.nan)
        for column, pair in enumerate(pairs):
            values = np.mean([each[pair] for each in runs], axis=0)
            table[: len(values), column] = values
        image = panel.imshow(table, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                panel.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8)
        panel.set_title(NAMES[method])
        panel.set_xticks(range(len(pairs)), pairs)
        panel.set_yticks(range(depth), range(1, depth + 1))
        panel.set_xlabel("pair of exits")
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=panels, label="cosine of gradients")
    figure.savefig(path, format="png")


def exit_pairs(results: Results) -> list[str]:
    """Returns the names of the pairs of exits with measured gradients."""
    measured = [result["gradient_conflict"] for result in results.values() if result["gradient_conflict"]]
    return list(measured[0]["cosines"]) if measured else []


def _panels(count: int, width: float = 3.0) -> tuple[Figure, Any]:
    """Returns a figure and its panels, at most three side by side."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, 3.2 * rows + 0.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def _finish(figure: Figure, panels: Any, path: Path, columns: int = 4) -> None:
    for panel in panels:
        panel.grid(True, color="#D9D9D9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(path, format="png")
