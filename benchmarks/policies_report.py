"""Renders calibration results as Markdown: guarantees, exit criteria, the cost table, deadlines."""

from __future__ import annotations

from record import footer


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
                f"| {100 * cell['plug-in']['exceeded']:.1f} % | {cell['oracle']['layers']:.2f} |"
            )
    populations = ", ".join(f"{task} {figures['population']}" for task, figures in result["tasks"].items())
    intro = (
        f"**{settings['draws']} draws of calibration rows**, a third of which tune: MiniLM with decoupled exits in "
        f"INT8, a threshold per exit, δ = {settings['delta']:g}; populations of {populations} held-out rows. Draws in "
        "which the policy's true loss exceeds ε, which the guarantee allows in a share δ of them; draws that certified "
        "more than the full model; layers run per row, "
        f"{next(iter(result['tasks'].values()))['full_layers']:g} at full depth. Betting and the exact test judge the "
        "same candidates on the same rows. Plug-in takes the observed loss for the true one; the oracle, on "
        f"{settings['oracle_draws']} draws, uses the true loss."
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
        f"exact test certifies, means of {settings['draws']} draws."
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
