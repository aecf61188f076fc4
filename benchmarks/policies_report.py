"""Renders calibration results as Markdown: guarantees, exit criteria, the cost table, deadlines."""

from __future__ import annotations

from record import footer


def guarantee(result: dict) -> str:
    """Renders how often guarantees fail, and their cost, per task."""
    settings = result["settings"]
    lines = [
        "| task | ε | δ | exceeded (95 % interval) | plug-in exceeded | certified | layers | oracle "
        "| Matthews: exceeded, certified |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, figures in result["tasks"].items():
        for cell in figures["cells"]:
            certified, low_high = cell["promise"], cell["promise"]["interval"]
            layers, metric = f"{certified['layers']:.2f} | {cell['oracle_layers']:.2f}", cell["matthews"]
            lines.append(
                f"| {task} | {100 * cell['epsilon']:g} % | {cell['delta']:g} | {100 * certified['exceeded']:.1f} % "
                f"({100 * low_high[0]:.1f}–{100 * low_high[1]:.1f}) | {100 * cell['plug-in']['exceeded']:.1f} % "
                f"| {100 * certified['beyond_full_depth']:.0f} % | {layers} "
                f"| {100 * metric['exceeded']:.1f} %, {100 * metric['beyond_full_depth']:.0f} % |"
            )
    populations = ", ".join(f"{task} {figures['population']}" for task, figures in result["tasks"].items())
    intro = (
        f"**{settings['draws']} draws of {settings['rows']} calibration rows**, MiniLM trained by SWEET in INT8 "
        f"(`{settings['recipe']}`), a threshold per exit; populations of {populations} held-out rows. Draws in "
        "which the policy's true loss exceeds ε, which the guarantee allows in a share δ of them; draws "
        "that certified more than the full model; layers run per row, "
        f"{next(iter(result['tasks'].values()))['full_layers']:g} at full depth. Last, the same ε of Matthews "
        "correlation by the paired bootstrap, which is approximate."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def ways(result: dict) -> str:
    """Renders the area under the curve of every criterion on every task, relative to the first."""
    tasks, settings = result["tasks"], result["settings"]
    names = list(next(iter(tasks.values()))["ways"])
    lines = ["| way | " + " | ".join(tasks) + " | mean |", "|---" * (len(tasks) + 2) + "|"]
    for name in names:
        figures = [task["ways"][name] for task in tasks.values()]
        if name == names[0]:
            cells = [f"{100 * each['area']:.2f}" for each in figures]
            mean = f"{100 * sum(each['area'] for each in figures) / len(figures):.2f}"
        else:
            cells = [f"{100 * each['against_first']:+.2f} ± {100 * each['standard_error']:.2f}" for each in figures]
            mean = f"{100 * sum(each['against_first'] for each in figures) / len(figures):+.2f}"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {mean} |")
    rows = ", ".join(f"{task} {figures['rows']['reported']}" for task, figures in tasks.items())
    intro = (
        "**Which way of stopping**: accuracy in percent, averaged over all budgets of time between everyone leaving "
        f"at the first exit and full depth; validation rows ({rows}), milliseconds on the clock in batches of 32. "
        "Others than the first as differences to it, with their paired standard errors over rows. A threshold per exit "
        f"and temperatures unless said otherwise, found on up to {settings['calibration_rows']} other rows."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def cost_table(result: dict) -> str:
    """Renders predicted over measured milliseconds."""
    lines = [
        "| task | batch | measured ms/row, from full depth to the first exit | predicted / measured, median (range) |",
        "|---|---|---|---|",
    ]
    for task, figures in result["tasks"].items():
        for batch, found in figures.items():
            measured = " ".join(f"{value:.3g}" for value in found["measured"])
            ratios = ", ".join(
                f"{middle:.2f} ({low:.2f}–{high:.2f})"
                for middle, low, high in zip(found["ratio"], found["least"], found["most"], strict=True)
            )
            lines.append(f"| {task} | {batch.removeprefix('batch ')} | {measured} | {ratios} |")
    intro = (
        "**The cost table beside the clock**: a table made on calibration rows, then other rows timed under policies "
        f"from full depth to the boldest, {result['settings']['alternations']} times in alternation."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def deadlines(result: dict) -> str:
    """Renders the share of answers in time, per deadline."""
    exits = list(result["batch 1"][0]["answered_at"])
    lines = [
        "| batch | deadline, ms | between exits | in time | beyond the deadline, ms: p50 / p95 / p99 | a segment, ms "
        "| answered at " + " / ".join(exits) + " |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in (1, 32):
        for each in result[f"batch {size}"]:
            over = " / ".join(f"{value:.2f}" for value in each["over_ms"].values())
            answered = " / ".join(str(value) for value in each["answered_at"].values())
            lines.append(
                f"| {size} | {each['deadline_ms']:.2f} | {' and '.join(map(str, each['between_exits']))} "
                f"| {100 * each['in_time']:.1f} % of {each['answers']} | {over} | {each['longest_segment_ms']:.2f} "
                f"| {answered} |"
            )
    settings = result["settings"]
    model = (
        f"MiniLM trained on {settings['task']}"
        if settings["task"]
        else f"the shape of {settings['shape']}, random weights"
    )
    intro = (
        f"**Deadlines**: {model} in INT8 on the `{result['backend']}` backend, {settings['rows']} sentences, without "
        "early exits by confidence. In time: within the deadline and one segment of that very text or batch."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])
