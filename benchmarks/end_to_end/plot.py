"""Draws accuracy over texts per second, a picture per task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from end_to_end.report import CERTIFIED, FULL, OURS, SIZES, speed

BLUE, RED, GREY = "#0072B2", "#D55E00", "#555555"
MARKS = "osD^v<>pXh"


def draw(task: Mapping[str, Any], path: Path) -> None:
    """Draws a panel for batches and one for single texts; the certified policy has a ring."""
    figure = Figure(figsize=(9.6, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (size, name) in zip(panels, SIZES.items(), strict=True):
        _panel(panel, task, size)
        panel.set_xlabel(f"texts per second, {name}")
    panels[0].set_ylabel("accuracy, %")
    figure.suptitle(task["title"], fontsize=11)
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False, fontsize=7.5)
    figure.savefig(path)


def _panel(panel: Any, task: Mapping[str, Any], size: str) -> None:
    contenders = task["contenders"]
    panel.axhline(100 * task["plain"], color=GREY, linewidth=0.8)
    panel.axhline(99 * task["plain"], color=GREY, linewidth=0.8, linestyle=":", label="99 % of plain fine-tuning")
    own = [title for title in contenders if title.startswith("fixed exit")] + [FULL]
    fixed = [(speed(task, title, size), 100 * contenders[title]["accuracy"]) for title in own]
    panel.plot(*zip(*fixed, strict=True), color=BLUE, marker="o", markersize=4, linewidth=1, label="fixed exits, INT8")
    for title, mark, color in ((OURS, "*", BLUE), (CERTIFIED, "P", BLUE)):
        at = speed(task, title, size), 100 * contenders[title]["accuracy"]
        panel.plot(*at, mark, color=color, markersize=13, markeredgecolor="white", linestyle="", label=title)
        if title == CERTIFIED and "refused" not in task["policies"][f"certified-{size}"]:
            panel.plot(*at, "o", color=BLUE, markersize=18, fillstyle="none", linestyle="", label="certified point")
    for kind, color in (("peer", RED), ("rival", GREY)):
        titles = [title for title, each in contenders.items() if each["kind"] == kind and title not in own]
        for place, title in enumerate(titles):
            at = speed(task, title, size), 100 * contenders[title]["accuracy"]
            panel.plot(*at, MARKS[place % len(MARKS)], color=color, markersize=6, alpha=0.8, linestyle="", label=title)
    panel.set_xscale("log")
    panel.grid(True, color="#D9D9D9", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
