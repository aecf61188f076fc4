"""Renders what exits with private layers cost and save at run time as Markdown."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from paper.plan import TASKS
from record import RESULTS, footer

# Reasons by the class of the error that `accelerate` raised.
_REASONS = {
    "CalibrationError": "no policy can be certified",
    "InputError": "too few different texts",
    "NoGainError": "no exit saves time",
}


def read(name: str) -> dict[str, Any] | None:
    """Returns a stored result, or `None` if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def certified() -> str:
    """Renders the results of `certified.py`."""
    result = read("certified")
    if result is None:
        return ""
    settings, drop = result["settings"], result["settings"]["max_agreement_drop"]
    lines = [
        "| task | texts | exits | layers, on the testing rows | layers, held out | agreement with full depth "
        "| with the checkpoint | texts/s | full depth | × full depth | × transformers float32 | commit |",
        "|---" * 12 + "|",
    ]
    ratios = []
    for task in (task for task in TASKS if task in result["tasks"]):
        of_task = result["tasks"][task]
        if "refused" in of_task:
            lines.append(f"| {task} | {of_task['texts']} | {_reason(of_task)} {'| – ' * 8}| {_source(of_task)} |")
            continue
        speed = of_task["texts per second"]
        ratios.append(speed["policy"] / speed["full depth"])
        lines.append(
            f"| {task} | {of_task['texts']} | {'/'.join(map(str, of_task['exits']))} "
            f"| {of_task['certified layers'] / of_task['depth']:.0%} of {of_task['rows testing']} rows "
            f"| {of_task['layers'] / of_task['depth']:.0%} of {of_task['rows']} rows "
            f"| {100 * of_task['agreement with full depth']:.2f} "
            f"| {100 * of_task['agreement with the checkpoint']:.2f} "
            f"| {speed['policy']:,.0f} | {speed['full depth']:,.0f} | {ratios[-1]:.2f} "
            f"| {speed['policy'] / speed['checkpoint']:.2f} | {_source(of_task)} |"
        )
    mean = f" Mean speed-up over full depth: {np.mean(ratios):.2f}." if ratios else ""
    exceeded = [
        f"{task} ({round((1 - each['agreement with full depth']) * each['rows'])} of {each['rows']} texts)"
        for task, each in result["tasks"].items()
        if each.get("within the guarantee") is False
    ]
    above = f" More labels changed in the held-out sample for {', '.join(exceeded)}." if exceeded else ""
    missing = [task for task in TASKS if task not in result["tasks"]]
    lacking = f" Not measured: {', '.join(missing)}." if missing else ""
    intro = (
        "**Certified speed of `itrex-sweet accelerate`** with its defaults, on the plain fine-tuning of seed "
        f"{settings['seed']} (one seed), with the texts that it was not trained on, labels unused: exits after every "
        "layer learn from 40 % of them, INT8, exits that save no time are removed, and a policy is certified to change "
        f"at most {100 * drop:g} % of the labels of full depth, with 95 % confidence. Shares are of the layers of full "
        "depth. Agreement, in percent, and texts per second (without tokenization, batches of 32, "
        f"{settings['threads']} threads) are those of held-out texts.{mean}{above}{lacking}"
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def _source(of_task: dict[str, Any]) -> str:
    """Returns the commit of a task's run, and the priority if other work ran beside it."""
    beside = f", at {of_task['priority']} priority beside other work" if "priority" in of_task else ""
    return of_task["commit"][:10] + beside


def _reason(of_task: dict[str, Any]) -> str:
    """Returns a short reason for the error that a result records."""
    kind, _, message = of_task["refused"].partition(": ")
    return f"refused: {_REASONS.get(kind, message)}"


def probes() -> str:
    """Renders the results of `benchmarks/probes.py`."""
    result = read("probes")
    if result is None:
        return ""
    settings = result["settings"]
    lines = [
        "| shape and exits | precision | rows | full depth, no probes: shared, private (ms a row) "
        "| with all probes: shared, private (ms a row) | a probe: shared, private (% of full depth) "
        "| weights: shared, private (MB) |",
        "|---" * 7 + "|",
    ]
    for shape, of_shape in result["shapes"].items():
        exits = settings["exits"][shape]
        for precision, figures in of_shape.items():
            size = ", ".join(f"{figures['megabytes'][kind]:.1f}" for kind in ("shared", "private"))
            for batch in (name for name in figures if name.startswith("batch")):
                times = {name: each["least"] for name, each in figures[batch].items()}
                none, every = (
                    [times[f"{kind}, {probes}"] for kind in ("shared", "private")]
                    for probes in ("no probes", "all probes")
                )
                each = [100 * (a - b) / b / (len(exits) - 1) for a, b in zip(every, none, strict=True)]
                lines.append(
                    f"| {shape} {'/'.join(map(str, exits))} | {'INT8' if precision == 'int8' else precision} "
                    f"| {batch.removeprefix('batch ')} | {none[0]:.3f}, {none[1]:.3f} | {every[0]:.3f}, {every[1]:.3f} "
                    f"| {each[0]:.1f}, {each[1]:.1f} "
                    f"| {size} |"
                )
    intro = (
        "**Probes with shared and with private layers**, native engine, random weights, rows of "
        f"{settings['tokens']} tokens, {settings['threads']} threads, minimum of the rounds, columns of a row "
        "interleaved: full depth with every early exit switched off, and with every early exit probed and no row "
        "leaving."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])
