"""Draws accuracy over milliseconds per text of the trained models in `results/engines.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LEFT_OUT = ("torch fp32", "torch bf16")  # much slower than the others
MARKERS = {"OpenVINO INT8": "s", "ONNX Runtime INT8": "^", "CTranslate2 INT8": "D", "IPEX INT8": "v"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws a panel per task, batches of 32 sorted by length: a line of thresholds, and a marker for each peer."""
    tasks = result["trained"]
    figure = Figure(figsize=(3.1 * len(tasks), 3.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for panel, (task, figures) in zip(panels, tasks.items(), strict=True):
        times = {name: each["median"] for name, each in figures["sorted"]["milliseconds_per_text"].items()}
        ours = sorted((times[name], figures["accuracy"][name]) for name in times if "threshold" in name)
        full = next(name for name in times if name.endswith("full depth"))
        stored = next(name for name in times if name.endswith("stored policy"))
        panel.plot(*zip(*ours, strict=True), color="#0072B2", marker="o", markersize=4, label="ours, by threshold")
        for name, mark in ((full, "P"), (stored, "*")):
            label = f"ours, {name.split(', ')[1]}"
            at = times[name], figures["accuracy"][name]
            panel.plot(*at, mark, color="#0072B2", markersize=12, markeredgecolor="white", label=label, linestyle="")
        for name, time in times.items():
            if name in figures["mean_layers"] or name in LEFT_OUT or name == full:
                continue
            panel.plot(time, figures["accuracy"][name], MARKERS.get(name, "X"), color="#D55E00", alpha=0.8, label=name)
        low, high = panel.get_ylim()
        middle, span = (low + high) / 2, max(high - low, 6.0)  # at least 6 points high
        panel.set_ylim(middle - span / 2, middle + span / 2)
        panel.set_xlim(left=0)
        panel.set_title(task, fontsize=10)
        panel.set_xlabel("milliseconds per text")
        panel.grid(True, color="#D9D9D9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy, %")
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(path)
