"""Tables and pictures of the paper's figures, from the runs that are there, into `docs/paper.md`.

python benchmarks/paper/report.py
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from record import ROOT, foot
from report import write

from paper.plan import METHODS, SEEDS, TASKS, Run

NAMES = {"sweet": "SWEET", "paper": "SWEET as published", "joint": "Early-Exit", "multi-model": "Multi-Model"}
COLOURS = {"sweet": "#0072B2", "paper": "#56B4E9", "joint": "#D55E00", "multi-model": "#009E73"}
BUDGETS = np.linspace(1 / 6, 1.0, 26)  # shares of the depth

Found = dict[tuple[str, str, int], dict[str, Any]]


def main() -> None:
    found = {
        (task, method, seed): result
        for task, method, seed in itertools.product(TASKS, METHODS, SEEDS)
        if (result := Run(task, method, seed).read())
    }
    if not found:
        raise SystemExit("no run is there yet: make paper.")
    draw_scores(found, ROOT / "docs" / "paper_exits.png")
    draw_curves(found, ROOT / "docs" / "paper_curves.png")
    draw_conflict(found, ROOT / "docs" / "paper_conflict.png")
    write("docs/paper.md", what_ran(found), scores(found), claims(found), conflict(found))


def what_ran(found: Found) -> str:
    """The runs behind every figure below, and those that are missing."""
    every = list(itertools.product(TASKS, METHODS, SEEDS))
    tasks = sorted({task for task, _, _ in found}, key=TASKS.index)
    rates = sorted({result["settings"]["learning_rate"] for result in found.values()})
    hours = sum(result["seconds"] for result in found.values()) / 3600
    latest = max(found.values(), key=lambda result: result["date"])
    return (
        f"**{len(found)} of {len(every)} runs are there**: {', '.join(tasks)}; learning rates "
        f"{', '.join(f'{rate:g}' for rate in rates)}; {hours:.1f} hours in all, beside other work. `make paper` "
        f"runs the others. Last run: {foot(latest)}"
    )


def scores(found: Found) -> str:
    """Score of every exit, mean and deviation over seeds, per task and method."""
    exits = next(iter(found.values()))["settings"]["exits"]
    lines = ["| task | method | seeds | " + " | ".join(f"exit {exit_}" for exit_ in exits) + " |"]
    lines.append("|---" * (len(exits) + 3) + "|")
    for task, method in itertools.product(TASKS, METHODS):
        table = of_seeds(found, task, method)
        if len(table):
            spread = table.std(0, ddof=1) if len(table) > 1 else [None] * len(exits)
            cells = [
                f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
                for mean, deviation in zip(table.mean(0), spread, strict=True)
            ]
            lines.append(f"| {task} | {NAMES[method]} | {len(table)} | " + " | ".join(cells) + " |")
    intro = "**Individual classifiers** (the paper's figure 3): accuracy, of CoLA Matthews correlation, in percent."
    return "\n".join([intro, "", *lines])


def claims(found: Found) -> str:
    """The paper's two averages beside ours."""
    lines = [
        "| | paper, mean | here, mean over exits | at exit 1 | at the last exit | pairs of runs |",
        "|---|---|---|---|---|---|",
    ]
    for method, told in (("multi-model", "+2.3"), ("sweet", "+1.1"), ("paper", "+1.1")):
        pairs = [
            np.array(result["score"]) - np.array(found[task, "joint", seed]["score"])
            for (task, of, seed), result in found.items()
            if of == method and (task, "joint", seed) in found
        ]
        if not pairs:
            continue
        difference = 100 * np.stack(pairs)
        means = difference.mean(axis=1)
        error = f" ± {means.std(ddof=1) / len(means) ** 0.5:.1f}" if len(means) > 1 else ""
        lines.append(
            f"| {NAMES[method]} over Early-Exit | {told} | {means.mean():+.1f}{error} | {difference[:, 0].mean():+.1f} "
            f"| {difference[:, -1].mean():+.1f} | {len(means)} |"
        )
    intro = (
        "**The paper's two claims**, points of the exits' scores; differences of runs with one task and seed, ± their "
        "standard error."
    )
    return "\n".join([intro, "", *lines])


def conflict(found: Found) -> str:
    """Mean cosine per pair of exits."""
    lines = [
        "| method | " + " | ".join(pair for pair in _pairs(found)) + " | measured |",
        "|---" * (len(_pairs(found)) + 2) + "|",
    ]
    for method in METHODS:
        measured = [
            r["gradient_conflict"] for (_, of, _), r in found.items() if of == method and r["gradient_conflict"]
        ]
        if measured:
            cells = [f"{np.mean([np.mean(each['cosines'][pair]) for each in measured]):+.3f}" for pair in _pairs(found)]
            lines.append(
                f"| {NAMES[method]} | " + " | ".join(cells) + f" | {sum(each['measured'] for each in measured)} |"
            )
    intro = (
        "**Gradient conflict** (figure 2 of the blog): cosine of two exits' gradients on a layer's weights, mean over "
        "the layers that both may reach, training steps and tasks. 0.000 is exact where gradients are cut."
    )
    return "\n".join([intro, "", *lines])


def of_seeds(found: Found, task: str, method: str) -> np.ndarray:
    """(seeds, exits) scores."""
    return np.array([found[task, method, seed]["score"] for seed in SEEDS if (task, method, seed) in found])


def draw_scores(found: Found, path: Path) -> None:
    """A panel per task: score over exits, a line per method."""
    tasks = [task for task in TASKS if any(each == task for each, _, _ in found)]
    figure, panels = _panels(len(tasks))
    for panel, task in zip(panels, tasks, strict=True):
        exits = next(result for (of, _, _), result in found.items() if of == task)["settings"]["exits"]
        for method in METHODS:
            table = 100 * of_seeds(found, task, method)
            if len(table):
                spread = table.std(0, ddof=1) if len(table) > 1 else None
                panel.errorbar(exits, table.mean(0), spread, color=COLOURS[method], marker="o", label=NAMES[method])
        panel.set_title(task)
        panel.set_xlabel("exit, layers")
        panel.set_xticks(exits)
    panels[0].set_ylabel("score, %")
    _finish(figure, panels, path)


def draw_curves(found: Found, path: Path) -> None:
    """Score over layers run, averaged over the tasks that every method has."""
    complete = [
        (task, seed)
        for task, seed in itertools.product(TASKS, SEEDS)
        if all((task, method, seed) in found for method in METHODS)
    ]
    figure, panels = _panels(1, width=5.2)
    for method in METHODS:
        curves = [_at_budgets(found[task, method, seed]) for task, seed in complete]
        if curves:
            panels[0].plot(BUDGETS, 100 * np.mean(curves, axis=0), color=COLOURS[method], label=NAMES[method])
    panels[0].set_xlabel("layers run, share of the depth (Multi-Model: cumulative)")
    panels[0].set_ylabel(f"score, %, mean of {len(complete)} runs a method")
    _finish(figure, panels, path, columns=2)


def draw_conflict(found: Found, path: Path) -> None:
    """Heat maps: layers by pairs of exits."""
    methods = [m for m in METHODS if any(of == m and r["gradient_conflict"] for (_, of, _), r in found.items())]
    figure, panels = _panels(len(methods), width=3.2)
    pairs = _pairs(found)
    for panel, method in zip(panels, methods, strict=True):
        measured = [r["gradient_conflict"]["cosines"] for (_, of, _), r in found.items() if of == method]
        depth = max(len(values) for values in measured[0].values())
        table = np.full((depth, len(pairs)), np.nan)
        for column, pair in enumerate(pairs):
            values = np.mean([each[pair] for each in measured], axis=0)
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


def _at_budgets(result: dict[str, Any]) -> np.ndarray:
    """Score at each budget; between two thresholds linear, beyond the dearest that of the last."""
    layers, values = np.array(sorted(map(tuple, result["curve"]))).T
    return np.interp(BUDGETS * result["settings"]["exits"][-1], layers, values)


def _pairs(found: Found) -> list[str]:
    measured = [result["gradient_conflict"] for result in found.values() if result["gradient_conflict"]]
    return list(measured[0]["cosines"]) if measured else []


def _panels(count: int, width: float = 3.4) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width * count, 3.7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _finish(figure: Figure, panels: Any, path: Path, columns: int = 4) -> None:
    for panel in panels:
        panel.grid(True, color="#D9D9D9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(path, format="png")


if __name__ == "__main__":
    main()
