"""Renders `results/serving.json` and `results/serving_simulation.json` as sections of `docs/benchmarks/serving.md`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from record import footer

WORKLOADS = {"sst2": "SST-2", "ag_news": "AG News", "mixed": "8 to 512 tokens"}
OWN = "itrex-sweet"


def sections(result: dict[str, Any], simulation: dict[str, Any] | None) -> list[str]:
    """Returns the sections of the page."""
    parts = result["parts"]
    made = [
        peers(parts.get("peers", {}), result["settings"]["bound_ms"]),
        processes(parts.get("processes", {}), result["settings"]["bound_ms"]),
        overhead(parts.get("overhead", {})),
        scheduling(parts.get("scheduling", {})),
        overload(parts.get("overload", {})),
        soak(parts.get("soak", {})),
        footer(result),
    ]
    if simulation:
        made += [simulated(simulation), checked(simulation), footer(simulation)]
    return made


def _middle(outcomes: list[dict[str, Any]], *keys: str) -> float:
    """Returns the median of a nested figure over runs."""
    values = []
    for outcome in outcomes:
        value: Any = outcome
        for key in keys:
            value = value[key]
        values.append(value)
    return median(values)


def _title(key: str) -> str:
    workload, size = key.rsplit("-", 1)
    return f"{WORKLOADS[workload]}, {size} text{'s' if size != '1' else ''}"


def peers(part: dict[str, Any], bound: float) -> str:
    """Renders throughput and latency beside other servers."""
    if not part:
        return ""
    lines = [
        f"| texts of a request | server | accuracy | texts/s, p99 ≤ {bound:.0f} ms | × best other | saturation "
        "| equal load: p50, p99 ms | p99 ÷ best other | half of its own: p50, p99 ms | generator, cores |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for key, outcomes in part.items():
        titles = list(outcomes[-1])
        within = {title: _middle(outcomes, title, "within the bound", "texts_per_second") for title in titles}
        tails = {title: _middle(outcomes, title, "equal load", "p99") for title in titles}
        others = [title for title in titles if title != OWN]
        best, tail = max(within[title] for title in others), min(tails[title] for title in others)
        for title in titles:
            name = f"**{title}**" if title == OWN else title
            ratio = f"{within[title] / best:.2f}" if title == OWN and best else ""
            lower = f"{tails[title] / tail:.2f}" if title == OWN and tail else ""
            equal = [_middle(outcomes, title, "equal load", name_) for name_ in ("p50", "p99")]
            half = [_middle(outcomes, title, "half of its own", name_) for name_ in ("p50", "p99")]
            lines.append(
                f"| {_title(key)} | {name} | {_middle(outcomes, title, 'saturation', 'accuracy'):.1f} "
                f"| {within[title]:,.0f} | {ratio} | {_middle(outcomes, title, 'saturation', 'texts_per_second'):,.0f} "
                f"| {equal[0]:.1f}, {equal[1]:.1f} | {lower} | {half[0]:.1f}, {half[1]:.1f} "
                f"| {_middle(outcomes, title, 'saturation', 'generator_share'):.2f} |"
            )
    runs = {len(outcomes) for outcomes in part.values()}
    return "\n".join(
        [
            "## Beside other servers",
            "",
            "The same fine-tuned MiniLM of 6 layers in each server; all with INT8 weights, two threads, on the same "
            "two cores as the load generator. Poisson arrivals; latencies count from the scheduled arrival. The equal "
            "load is half of the saturation load of the best other server. Saturation is a closed loop of 64 clients. "
            + ("One run" if runs == {1} else f"Medians of {_range(runs)} runs")
            + ", in which the servers take turns. "
            "Accuracy is that of the answers of the saturation run, which draws texts with repetition.",
            "",
            *lines,
            "",
            "![Texts per second of each server](serving_peers.png)",
        ]
    )


def processes(part: dict[str, Any], bound: float) -> str:
    """Renders servers of one process beside servers of several."""
    if not part:
        return ""
    lines = [
        f"| texts of a request | server | texts/s, p99 ≤ {bound:.0f} ms | × best other | saturation | × best other "
        "| cores at saturation: server, generator | MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for key, outcomes in part.items():
        titles = list(outcomes[-1])
        measured = {
            load: {title: _middle(outcomes, title, load, "texts_per_second") for title in titles}
            for load in ("within the bound", "saturation")
        }
        best = {
            load: max(rate for title, rate in rates.items() if not title.startswith(OWN))
            for load, rates in measured.items()
        }
        for title in titles:
            cells = []
            for load, rates in measured.items():
                cells.append(f"{rates[title]:,.0f}")
                cells.append(f"{rates[title] / best[load]:.2f}" if title.startswith(OWN) and best[load] else "")
            cores = [_middle(outcomes, title, "saturation", name) for name in ("server_cores", "generator_share")]
            memory = _middle(outcomes, title, "memory_mb")
            name = f"**{title}**" if title.startswith(OWN) else title
            lines.append(
                f"| {_title(key)} | {name} | {' | '.join(cells)} | {cores[0]:.2f}, {cores[1]:.2f} | {memory:,.0f} |"
            )
    text = (
        "The servers of the table above, except Infinity, with one process, and with several on the same port that "
        "share the threads: `--reuse-port` here, `--workers` of uvicorn for the others. The best other server is the "
        "best of both kinds. Memory counts pages that processes share in each of them."
    )
    return "\n".join(["## Several processes on one port", "", text, "", *lines])


def _range(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


def overhead(part: dict[str, Any]) -> str:
    """Renders the latency of one request at a time through the server and by a call."""
    if not part:
        return ""
    lines = ["| | server, p50 ms | `predict`, p50 ms | difference, ms |", "|---|--:|--:|--:|"]
    lines += [
        f"| {_title(key)} | {_middle(outcomes, 'server_p50_ms'):.3f} | {_middle(outcomes, 'predict_p50_ms'):.3f} "
        f"| {_middle(outcomes, 'overhead_ms'):.3f} |"
        for key, outcomes in part.items()
    ]
    text = "One client sends the next request when it has an answer; `predict` gets the same texts elsewhere."
    return "\n".join(["## The server above the engine", "", text, "", *lines])


def scheduling(part: dict[str, Any]) -> str:
    """Renders continuous segments beside batches of requests."""
    if not part:
        return ""
    lines = [
        "| | load | segments: p50, p99 ms | batches: p50, p99 ms | p99, batches ÷ segments |",
        "|---|--:|--:|--:|--:|",
    ]
    for key, outcomes in part.items():
        for load in outcomes[-1]["segments"]:
            if load == "saturation":
                continue
            own = [_middle(outcomes, "segments", load, name) for name in ("p50", "p99")]
            other = [_middle(outcomes, "batches", load, name) for name in ("p50", "p99")]
            lines.append(
                f"| {_title(key)} | {float(load):.0%} | {own[0]:.2f}, {own[1]:.2f} | {other[0]:.2f}, {other[1]:.2f} "
                f"| {other[1] / own[1]:.2f} |"
            )
        rates = [_middle(outcomes, name, "saturation", "texts_per_second") for name in ("segments", "batches")]
        lines.append(
            f"| {_title(key)} | saturation | {rates[0]:,.0f} texts/s | {rates[1]:,.0f} texts/s "
            f"| {rates[0] / rates[1]:.2f} × the texts/s |"
        )
    return "\n".join(
        [
            "## Segments beside batches of requests",
            "",
            "`itrex-sweet serve` with `--scheduling segments` (the default) and `batches`, which runs a batch of "
            "requests to its last exit before the next one starts. With `segments`, batches that take less than 50 ms "
            "run to the end too, unless regrouping saves more than the measured time of the scheduler's steps; with "
            "this small model nearly all do. Loads are shares of the saturation of the segments; both get the same "
            "arrivals.",
            "",
            *lines,
        ]
    )


def overload(part: dict[str, Any]) -> str:
    """Renders loads beyond the capacity, with and without `--under-load degrade`."""
    if not part:
        return ""
    lines = [
        "| | `--under-load` | load | answered | refused (429) | accuracy of the answered | p50, p99 ms of the answered "
        "| refusals: p50, p99 ms |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for key, outcomes in part.items():
        for mode in ("refuse", "degrade"):
            for factor in outcomes[-1][mode]:
                figures = outcomes[-1][mode][factor]
                waits = figures.get("refused_p50")
                refused = f"{waits:.2f}, {figures['refused_p99']:.2f}" if waits is not None else ""
                lines.append(
                    f"| {_title(key)} | {mode} | {factor} × | {figures['answered']:,} | {figures['refused']:,} "
                    f"| {figures['accuracy']:.1f} | {figures['p50']:.1f}, {figures['p99']:.1f} | {refused} |"
                )
    return "\n".join(
        [
            "## Overload",
            "",
            "Loads as multiples of the saturation load, at most 128 requests in work. "
            "Without load, the calibrated policy next to full depth; `degrade` falls to the stored policy, which is "
            "certified to keep 99 % of the labels of full depth. Latencies include those of a saturated event loop.",
            "",
            *lines,
        ]
    )


def soak(part: dict[str, Any]) -> str:
    """Renders the last soak."""
    if not part:
        return ""
    figures = next(iter(part.values()))[-1]
    return "\n".join(
        [
            "## Soak",
            "",
            f"`make soak-serve`, {figures['minutes']:.0f} minutes at {figures['rate']:,.0f} requests per second"
            f"{figures.get('beside', '')}, with clients that leave, slow clients and reloads of the artifact: "
            f"{figures['answered']:,} answers, {figures['lost']} lost, {figures['doubled']} doubled, "
            f"{figures['different']} different from `predict`; {figures['left']:,} clients left, {figures['reloads']} "
            f"reloads; latency {figures['p50_ms']:.1f} ms in the median and {figures['p99_ms']:.0f} ms at the 99th "
            f"percentile; resident memory {figures['memory_first_mb']:.0f} MB after the first minute and "
            f"{figures['memory_last_mb']:.0f} MB at the end, {figures['slope_mb_per_hour']:+.1f} MB per hour.",
        ]
    )


def simulated(result: dict[str, Any]) -> str:
    """Renders the predictions."""
    lines = [
        "| requests/s | engines | cores (event loops + engines) | US$ per million texts | p50, p99, p99.9 ms "
        "| busy: event loops, engines | network, Gbit/s |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in result["predictions"]["rows"]:
        if row["cores"] is None:
            lines.append(f"| {row['rate']:,} | {row['kind']} | not within the bound | | | | |")
            continue
        lines.append(
            f"| {row['rate']:,} | {row['kind']} "
            f"| {row['cores']:,} ({row['loops']:,} + {row['cores'] - row['loops']:,}) "
            f"| {row['dollars_per_million']:.4f} | {row['p50']:.1f}, {row['p99']:.1f}, {row['p99.9']:.1f} "
            f"| {row['loop_share']:.0%}, {row['engine_share']:.0%} | {row['network_gbit']:.2f} |"
        )
    seconds = result["costs"]["request_seconds"]
    return "\n".join(
        [
            "## More cores, simulated",
            "",
            f"A discrete-event simulation (`benchmarks/serving/simulation.py`) fed by the measured costs of segments, "
            f"exits of real texts ({WORKLOADS[result['workload']]}) and {1e6 * seconds:.0f} µs of HTTP, tokenization "
            f"and scheduling per request. The smallest number of cores with a 99th percentile within "
            f"{result['bound_ms']:.0f} ms, and their price at US$ {result['price']} per core and hour. Event loops and "
            "engines have cores of their own.",
            "",
            *lines,
            "",
            "![Cost and cores by load](serving_simulation.png)",
        ]
    )


def checked(result: dict[str, Any]) -> str:
    """Renders measured beside simulated latencies."""
    if not result.get("check"):
        return ""
    lines = ["| | load | measured: p50, p99 ms | simulated: p50, p99 ms | error of p50, p99 |", "|---|--:|--:|--:|--:|"]
    for row in result["check"]:
        errors = [row[f"simulated_{name}"] / row[f"measured_{name}"] - 1 for name in ("p50", "p99")]
        lines.append(
            f"| {row['kind']} | {row['load']:.0%} | {row['measured_p50']:.2f}, {row['measured_p99']:.2f} "
            f"| {row['simulated_p50']:.2f}, {row['simulated_p99']:.2f} | {errors[0]:+.0%}, {errors[1]:+.0%} |"
        )
    return "\n".join(
        [
            "The simulation of this machine beside what was measured on it: an event loop and a team of two threads "
            "that share two cores. The measured server shares them with the load generator too:",
            "",
            *lines,
        ]
    )


def draw_peers(result: dict[str, Any], path: Path) -> None:
    """Draws throughput within the bound."""
    from matplotlib import pyplot

    part = result["parts"].get("peers", {})
    if not part:
        return
    figure, axes = pyplot.subplots(1, len(part), figsize=(2.6 * len(part), 3.2), squeeze=False)
    for axis, (key, outcomes) in zip(axes[0], part.items(), strict=True):
        titles = list(outcomes[-1])
        heights = [_middle(outcomes, title, "within the bound", "texts_per_second") for title in titles]
        bars = axis.bar(range(len(titles)), heights, color=["C0" if title == OWN else "0.7" for title in titles])
        axis.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=8)
        names = [title.replace(" + ", "\n+ ").replace(" (", "\n(") for title in titles]
        axis.set_xticks(range(len(titles)), names, rotation=60, fontsize=7, ha="right", rotation_mode="anchor")
        axis.set_title(_title(key), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.12)
    axes[0][0].set_ylabel(f"texts/s with p99 ≤ {result['settings']['bound_ms']:.0f} ms")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def draw_simulation(result: dict[str, Any], path: Path) -> None:
    """Draws dollars per million texts, by rate."""
    import numpy as np
    from matplotlib import pyplot

    rows = [row for row in result["predictions"]["rows"] if row["cores"]]
    rates, kinds = sorted({row["rate"] for row in rows}), list(dict.fromkeys(row["kind"] for row in rows))
    figure, axis = pyplot.subplots(figsize=(7.5, 3.6))
    width = 0.8 / len(kinds)
    for place, kind in enumerate(kinds):
        for row in (row for row in rows if row["kind"] == kind):
            at = rates.index(row["rate"]) + (place - (len(kinds) - 1) / 2) * width
            cost = row["dollars_per_million"]
            label = kind if row["rate"] == rates[0] else None
            axis.bar(at, cost, width * 0.92, color=f"C{place}", label=label)
            axis.annotate(f"{row['cores']:,}", (at, cost), ha="center", va="bottom", fontsize=7)
    axis.set_xticks(np.arange(len(rates)), [f"{rate:,}" for rate in rates])
    axis.set_yscale("log")
    axis.set_xlabel("requests per second (numbers on the bars: cores)")
    axis.set_ylabel("US$ per million texts")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
