"""Renders calibration results as Markdown: guarantees of all tasks, exit criteria, the cost table, deadlines."""

from __future__ import annotations

from record import footer

_PERCENT = ("exact_match", "micro_f1", "macro_f1")


def guarantee(result: dict) -> str:
    """Renders how often guarantees fail, and their cost, per task, with the exact test and with betting."""
    settings = result["settings"]
    share = "exact 0.333"
    lines = [
        "| task | rows | ε | betting: exceeded | certified | layers | exact: exceeded (95 % interval) | certified "
        "| layers | plug-in exceeded | oracle, layers |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, figures in result["tasks"].items():
        for cell in figures["cells"]:
            before, after, low_high = cell["betting"], cell[share], cell[share]["interval"]
            lines.append(
                f"| {task} | {cell['rows']} | {100 * cell['epsilon']:g} % | {100 * before['exceeded']:.1f} % "
                f"| {100 * before['beyond_full_depth']:.0f} % | {before['layers']:.2f} "
                f"| {100 * after['exceeded']:.1f} % ({100 * low_high[0]:.1f}–{100 * low_high[1]:.1f}) "
                f"| {100 * after['beyond_full_depth']:.0f} % | {after['layers']:.2f} "
                f"| {100 * cell['plug-in']['exceeded']:.1f} % | {cell['oracle 0.333']['layers']:.2f} |"
            )
    populations = ", ".join(f"{task} {figures['population']}" for task, figures in result["tasks"].items())
    intro = (
        f"**{max(settings['draws'])} draws of calibration rows**, a third of which tune: MiniLM with decoupled exits "
        f"in float32, a threshold per exit, δ = {settings['delta']:g}; populations of {populations} held-out rows. "
        "Exceeded: draws in which the true loss of the policy is above ε, which the guarantee allows in a share δ of "
        "them. Certified: draws in which a policy other than full depth was certified. Layers run per row, "
        f"{next(iter(result['tasks'].values()))['full_layers']:g} at full depth. Betting and the exact test judge the "
        "same candidates on the same rows. Plug-in takes the observed loss for the true one; the oracle uses the true "
        f"loss. The same tuning rows have {settings['tests']} draws of testing rows."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def tuning_shares(result: dict) -> str:
    """Renders the layers certified with several shares of tuning rows."""
    settings = result["settings"]
    names = sorted(name for name in next(iter(result["tasks"].values()))["cells"][0] if name.startswith("exact "))
    lines = [
        "| task | rows | ε | " + " | ".join(f"{100 * float(name.split()[1]):.0f} % tune" for name in names) + " |",
        "|---" * (len(names) + 3) + "|",
    ]
    for task, figures in result["tasks"].items():
        for cell in figures["cells"]:
            layers = " | ".join(f"{cell[name]['layers']:.2f}" for name in names)
            lines.append(f"| {task} | {cell['rows']} | {100 * cell['epsilon']:g} % | {layers} |")
    intro = (
        "**Shares of the rows that fit temperatures and propose candidates**: layers per row of the policy that the "
        f"exact test certifies, means of {max(settings['draws'])} draws."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])


def paired_tests(result: dict) -> str:
    """Renders power and size of the tests of a paired loss."""
    settings, power = result["settings"], result["power"]
    names = [name for name in power[0] if name not in ("rows", "lost", "won")]
    lines = ["| rows | lost | won | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    for cell in power:
        shares = " | ".join(f"{100 * cell[name]:.0f} %" for name in names)
        lines.append(f"| {cell['rows']} | {cell['lost']:g} % | {cell['won']:g} % | {shares} |")
    sizes, bets = (
        ", ".join(f"{100 * each['largest']:.2f}" for each in result["size"] if each["test"] == name)
        for name in ("exact", "betting")
    )
    low, high = (100 * share for share in settings["shares"])
    intro = (
        f"**Power of tests of the paired loss** at ε = {100 * settings['epsilon']:g} %, δ = {settings['delta']:g}: "
        "probability that a policy with these shares of lost and won rows is certified, by complete enumeration; for "
        "adaptive bets and the best constant bet (which needs the true shares), the share of "
        f"{settings['draws']} simulations whose wealth suffices at any row. At the boundary of the null hypothesis, "
        f"with {low:g} to {high:g} % of the rows lost or won, the exact test certifies at most {sizes} % of the time, "
        f"betting {bets} % ({', '.join(str(each['rows']) for each in result['size'] if each['test'] == 'exact')} rows)."
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
    intro = (
        f"**Deadlines**: the shape of {settings['shape']}, random weights in INT8 on the `{result['backend']}` "
        f"backend, {settings['rows']} sentences, without early exits by confidence. In time: within the "
        "deadline plus one segment of the same text or batch."
    )
    return "\n".join([intro, "", *lines, "", footer(result)])
