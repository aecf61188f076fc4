"""The figures of training recipes as Markdown."""

from __future__ import annotations

import numpy as np
from record import foot

PLAIN = "plain fine-tuning"


def recipes(result: dict) -> str:
    """Scores per exit, area and cost of every recipe on one task."""
    groups: dict[str, list[dict]] = {}
    for key, run in result["runs"].items():
        groups.setdefault(key.rsplit(", seed", 1)[0], []).append(run)
    plain = float(np.mean([run["score"][-1] for run in groups[PLAIN]]))
    exits = max((run["exits"] for run in result["runs"].values()), key=len)
    heads = " | ".join(f"exit {exit_}" for exit_ in exits)
    lines = [
        f"| recipe | seeds | {heads} | area | last exit against plain | layers at 99 % of plain |",
        "|---" * (len(exits) + 5) + "|",
    ]
    for recipe, runs in groups.items():
        scores = 100 * np.mean([run["score"] for run in runs], axis=0)
        cells = ["–"] * (len(exits) - len(scores)) + [f"{score:.1f}" for score in scores]
        area, layers = "–", "–"
        if recipe != PLAIN:
            area = f"{100 * np.mean([run['area'] for run in runs]):.2f}"
            enough = [layers_for(run, 0.99 * plain) for run in runs]
            layers = "–" if None in enough else f"{np.mean(enough):.2f}"
        lines.append(
            f"| {recipe} | {len(runs)} | {' | '.join(cells)} | {area} | {scores[-1] - 100 * plain:+.1f} | {layers} |"
        )
    rows = next(iter(result["runs"].values()))["rows"]
    intro = (
        f"**{result['task']}**, {rows[0]} rows of the training pool, scored on {rows[1]} others of it, in percent. "
        "Area: the score averaged over budgets of layers from 1 to 6."
    )
    return "\n".join([intro, "", *lines, "", foot(result)])


def layers_for(run: dict, least: float) -> float | None:
    """Mean layers of the cheapest threshold that scores so much; `None` if none does."""
    return min((layers for layers, score in run["curve"] if score >= least), default=None)
