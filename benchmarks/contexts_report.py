"""Renders `results/contexts.json` as Markdown tables."""

from __future__ import annotations

from typing import Any

import record


def section(result: dict[str, Any]) -> str:
    """Renders throughput by number of Python threads, and the latency of short calls beside long ones."""
    settings = result["settings"]
    threads, callers = settings["threads"], settings["callers"]
    title = (
        f"**Concurrent calls**, INT8, all layers in full, sentences of SST-2: texts per second of 1 to {max(callers)} "
        f"Python threads that call one model with {threads} threads of the engine, and median milliseconds of a call. "
        f"Serialized: one call at a time. Contexts: {threads} Python threads, each with a context of one thread, which "
        "is bound to a core in the last column."
    )
    columns = [f"{count} {kind}" for count in callers for kind in ("serialized", "shared")]
    lines = [f"| model, rows | {' | '.join(columns)} | contexts | bound |", "|---" * (len(columns) + 3) + "|"]
    for shape, figures in result["shapes"].items():
        for size, contenders in figures["batches"].items():
            names = [f"{kind}, {count}" for count in callers for kind in ("serialized", "shared")]
            names += [f"contexts, {threads}", f"contexts bound, {threads}"]
            lines.append(f"| {shape}, {size} | {' | '.join(_cell(contenders[name]) for name in names)} |")
    beside = [
        "Milliseconds (median / 95th percentile) of a call of one row while another Python thread runs batches of "
        f"{max(settings['sizes'])} rows:",
        "",
        "| model | serialized | shared |",
        "|---|---|---|",
    ]
    for shape, figures in result["shapes"].items():
        short = figures["short beside long"]
        beside.append(f"| {shape} | {_latency(short['serialized'])} | {_latency(short['shared'])} |")
    return "\n".join([title, "", *lines, "", *beside, "", record.footer(result)])


def _cell(figures: dict[str, Any]) -> str:
    return f"{figures['rows_per_second']:.0f} ({figures['milliseconds']['p50']:.1f} ms)"


def _latency(percentiles: dict[str, float]) -> str:
    return f"{percentiles['p50']:.1f} / {percentiles['p95']:.1f}"
