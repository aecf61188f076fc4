"""Renders `results/headline.json` as the table of the README: early exit beside plain fine-tuning and INT8 peers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from record import RESULTS, footer

RESULT = RESULTS / "headline.json"


def table() -> str:
    """Returns the table as Markdown, or an empty string if nothing was measured yet.

    A row is a method, a pair of columns a task: score in percent and texts per second, means over seeds, with the
    standard deviation of the score. Texts per second include tokenization.
    """
    if not RESULT.is_file():
        return ""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    tasks, settings = result["tasks"], result["settings"]
    methods = {key: each["name"] for figures in tasks.values() for key, each in figures["methods"].items()}
    names = {task: figures.get("title", task.replace("_", " ").upper()) for task, figures in tasks.items()}
    heads = [f"{names[task]}, {figures['metric']} | texts/s" for task, figures in tasks.items()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" + "|--:" * (2 * len(tasks)) + "|"]
    for key, name in methods.items():
        cells = [_cells(figures["methods"].get(key), key == "ours") for figures in tasks.values()]
        lines.append(f"| {f'**{name}**' if key == 'ours' else name} | " + " | ".join(cells) + " |")
    rows = ", ".join(f"{names[task]} {figures['rows']}" for task, figures in tasks.items())
    seeds = len(settings["seeds"])
    foreword = (
        f"{settings['model']}, validation rows ({rows}), "
        + (f"mean ± standard deviation of {seeds} seeds; " if seeds > 1 else "one seed; ")
        + f"texts per second end to end, tokenization included, batches of {settings['batch']}, "
        f"{settings['threads']} threads. {settings['budget']}"
    )
    return "\n".join([*lines, "", f"{foreword} {footer(result)}"])


def _cells(figures: dict[str, Any] | None, strong: bool) -> str:
    if figures is None:
        return "– | –"
    score, speed = _spread(figures["score"]), f"{mean(figures['texts_per_second']):,.0f}"
    return f"**{score}** | **{speed}**" if strong else f"{score} | {speed}"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
