"""Draws accuracy over milliseconds of exit criteria, a panel per task."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SHOWN = {
    "max-probability": "#0072B2",
    "max-probability, one threshold": "#56B4E9",
    "patience": "#D55E00",
    "patience and confidence": "#E69F00",
}


def draw(result: dict, path: Path) -> None:
    """Writes a PNG."""
    tasks = result["tasks"]
    rows = -(-len(tasks) // 2)
    figure = Figure(figsize=(8.4, 3.4 * rows + 0.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for panel in panels[len(tasks) :]:
        panel.set_visible(False)
    for panel, (task, figures) in zip(panels, tasks.items(), strict=False):
        for way, colour in SHOWN.items():
            points = sorted(
                (point["milliseconds"], 100 * point["accuracy"]) for point in figures["ways"][way]["points"]
            )
            panel.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3.5, linewidth=1.3, label=way)
        low, high = panel.get_ylim()
        middle, span = (low + high) / 2, max(high - low, 4.0)  # at least 4 points high
        panel.set_ylim(middle - span / 2, middle + span / 2)
        panel.set_title(task, fontsize=11)
        panel.set_xlim(left=0)
        panel.set_xlabel("milliseconds per text, batches of 32")
        panel.grid(True, color="#D9D9D9", linewidth=0.6)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0].set_ylabel("accuracy, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, format="png")
