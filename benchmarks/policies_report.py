"""Renders calibration results as Markdown: guarantees of all tasks, exit criteria, the cost table, deadlines."""

from __future__ import annotations

from record import footer

_PERCENT = ("exact_match", "micro_f1", "macro_f1")


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
        f"(`{settings['recipe']}`), a threshold per exit; populations of {populations} held-out rows. "
        "Exceeded: draws in which the true loss of the policy is above ε, which the guarantee allows in a share δ of "
        "them. Certified: draws in which a policy other than full depth was certified. Layers run per row, "
        f"{next(iter(result['tasks'].values()))['full_layers']:g} at full depth. The last column "
        "uses the same ε for Matthews correlation, with the paired bootstrap, which is approximate."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def task_guarantee(result: dict) -> str:
    """Renders the metrics of every exit, and how often guarantees fail."""
    settings = result["settings"]
    exits = ["| data | exit | metrics | agrees with full depth |", "|---|---|---|---|"]
    cells = [
        "| data | loss of | ε | δ | exceeded (95 % interval) | certified | layers | mean loss | metrics |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in result["tasks"].items():
        rows = zip(found["exits"], found["metrics_per_exit"], found["agreement_per_exit"], strict=True)
        exits += [f"| {name} | {exit_} | {_metrics(each)} | {100 * share:.1f} % |" for exit_, each, share in rows]
        for cell in found["cells"]:
            low, high = (100 * end for end in cell["interval"])
            cells.append(
                f"| {name} | {cell['loss']} | {100 * cell['epsilon']:g} % | {cell['delta']:g} "
                f"| {100 * cell['exceeded']:.1f} % ({low:.1f}–{high:.1f}) "
                f"| {100 * cell['certified_beyond_full_depth']:.0f} % "
                f"| {cell['layers']:.2f} of {cell['full_layers']:g} | {100 * cell['mean_loss']:.2f} % "
                f"| {_metrics(cell['metrics'])} |"
            )
    tolerances = ", ".join(
        f"{each['tolerance']:g} for {name}" for name, each in result["tasks"].items() if each["tolerance"] is not None
    )
    intro = (
        f"**Multi-label classification and regression**: {settings['draws']} draws of {settings['rows']} calibration "
        f"rows from {settings['population']} held-out rows, MiniLM with decoupled exits in float32, a threshold per "
        "exit. A row is lost in agreement if its set of labels differs from that at full depth, or its value by more "
        f"than the tolerance ({tolerances or 'none here'}). First, metrics and agreement if all rows leave at an exit; "
        "then, means over the draws of the true loss, layers and metrics of the certified policy."
    )
    return "\n".join([intro, "", *exits, "", *cells, "", footer(result)])


def _metrics(values: dict[str, float]) -> str:
    """Returns names and values, fractions in percent."""
    shown = (
        f"{name.replace('_', ' ')} {100 * value:.1f} %" if name in _PERCENT else f"{name.replace('_', ' ')} {value:.3f}"
        for name, value in values.items()
    )
    return ", ".join(shown)


def ways(result: dict) -> str:
    """Renders the area under the curve of every criterion on every task, relative to the first."""
    tasks, settings = result["tasks"], result["settings"]
    names = list(next(iter(tasks.values()))["ways"])
    lines = ["| criterion | " + " | ".join(tasks) + " | mean |", "|---" * (len(tasks) + 2) + "|"]
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
        "**Exit criteria**: accuracy in percent, averaged over all budgets of time from all rows leaving at the first "
        f"exit to full depth; validation rows ({rows}), time measured in batches of 32. The rows after the first are "
        "differences from it, with paired standard errors over rows. Each criterion has a threshold per exit and "
        f"temperatures unless it says otherwise, fitted on up to {settings['calibration_rows']} other rows."
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
        "**Predicted and measured cost**: a cost table measured on calibration rows, then other rows timed under "
        f"policies from full depth to the most aggressive, {result['settings']['alternations']} times in alternation."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def deadlines(result: dict) -> str:
    """Renders the share of answers in time, per deadline."""
    exits = list(result["batch 1"][0]["answered_at"])
    lines = [
        "| batch | deadline, ms | between exits | in time | over the deadline, ms: p50 / p95 / p99 | longest segment, "
        "ms | answered at " + " / ".join(exits) + " |",
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
        "early exits by confidence. In time: within the deadline plus one segment of the same text or batch."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])
