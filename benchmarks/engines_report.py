"""Renders `results/engines.json` as Markdown tables."""

from __future__ import annotations

from typing import Any

import record


def sections(result: dict[str, Any]) -> str:
    """Renders a section per workload, and the provenance."""
    parts = []
    if "dense" in result:
        parts.append(dense(result["dense"]))
    if "lengths" in result:
        parts.append(lengths(result["lengths"]))
    return "\n\n".join([*parts, footer(result)])


def dense(figures: dict[str, Any]) -> str:
    """Renders milliseconds per batch, share of the peak rate, and agreement."""
    lines = []
    for name, times in figures["milliseconds"].items():
        rate, share = figures["linear_multiply_adds_per_second"][name], figures["share_of_limit"].get(name)
        leaving = "leaving" in name
        lines.append(
            [
                name,
                _spread(times, 1),
                "" if leaving else f"{rate / 1e9:.0f}",
                "" if share is None else f"{share:.1%}",
                *_answers(figures["answers"], name),
            ]
        )
    peaks = [peak for peak in figures["limit_multiply_adds_per_second"] if peak is not None]
    work = figures["multiply_adds_per_token"]
    limit = f"The limit was {max(peaks) / 1e9:.0f} G multiply-adds per second. " if peaks else ""
    return _section(
        f"**{figures['shape']}, random weights, {figures['rows']} rows of {figures['tokens']} tokens**, milliseconds "
        f"per batch, median (quartiles). {limit}Linear layers in full take {work['linear'] / 1e6:.0f} M multiply-adds "
        f"per token; attention's products, not counted, {work['attention'] / 1e6:.1f} M. Full depth with all probes "
        f"takes {figures['probing_against_without_exits']:.2f} times as long as the same layers without exits.",
        ["engine", "ms", "G multiply-adds/s", "of the limit", "same label", "cosine"],
        lines,
    )


def lengths(figures: dict[str, Any]) -> str:
    """Renders times one at a time, in natural order, and sorted by length."""
    single, natural, ordered = (figures[name]["milliseconds_per_text"] for name in ("one by one", "natural", "sorted"))
    lines = [
        [
            name,
            _tail(times),
            *(f"{1000 / batches[name]['median']:.0f}" for batches in (natural, ordered)),
            *_answers(figures["sorted"]["answers"], name),
        ]
        for name, times in single.items()
    ]
    return _section(
        f"**The same model on the sentences of SST-2 validation**, {figures['rows']} of them, of "
        f"{figures['mean_tokens']} tokens on average: milliseconds per text one at a time (median / 95th percentile), "
        "and texts per second in batches of 32, in the order of the data set and sorted by length.",
        ["engine", "one by one, ms", "batches", "batches sorted", "same label", "cosine"],
        lines,
    )


def mixes(result: dict[str, Any]) -> str:
    """Renders the time saved by early exit beside the multiply-adds saved."""
    kinds = ("one by one", f"batches of {result['batch']}")
    lines = [
        [name, f"{figures['work']:.1%}"]
        + [f"{result[kind]['mixes'][name][column]:.{digits}%}" for kind in kinds for column, digits in PARTS]
        for name, figures in result[kinds[0]]["mixes"].items()
    ]
    probing = " and ".join(
        f"{100 * (result[kind]['probing_against_without_exits'] - 1):.1f} % {title}"
        for kind, title in zip(kinds, ("one at a time", "in batches"), strict=True)
    )
    return _section(
        f"**Given shares of {result['rows']} rows leave at exits "
        f"{'/'.join(map(str, result['settings']['exits']))}**, "
        f"{result['settings']['shape']} in INT8, rows of {result['mean_tokens']} tokens on average: multiply-adds and "
        "time as shares of full depth, and the measured speed-up as a share of the reduction of multiply-adds. Probing "
        f"every exit with no row leaving costs {probing} over the same layers without exits.",
        ["rows that leave at each exit", "multiply-adds", "time, one by one", "realised", "time, batches", "realised"],
        lines,
        record.footer(result),
    )


PARTS = (("time", 1), ("realised", 0))


def operations(result: dict[str, Any]) -> str:
    """Renders the rates of linear layers on every instruction set."""
    lines = []
    for isa, figures in result["instruction_sets"].items():
        if "missing" in figures:
            lines.append([isa, f"({figures['missing']})", *[""] * 5])
            continue
        for kind, rates in figures["rates"].items():
            limit = f"{figures['limit']:.0f}" if kind == "int8" else ""
            across = (sorted(of_rows[rows] for of_rows in rates.values()) for rows in ("1", "8", "25", "128", "512"))
            lines.append([f"{isa}, {kind}", limit, *(f"{low[0]:.0f}–{low[-1]:.0f}" for low in across)])
    shapes = ", ".join(
        next(iter(next(f["rates"] for f in result["instruction_sets"].values() if "rates" in f).values()))
    )
    return _section(
        f"**Linear layers**, G multiply-adds per second on {result['settings']['threads']} threads, minimum and "
        f"maximum over the shapes {shapes}, quantization of the input included, by number of rows; the limit is the "
        "rate of the instruction set's 8-bit multiply-add on registers.",
        ["instruction set", "limit", "1 row", "8", "25", "128", "512"],
        lines,
        record.footer(result),
    )


def footer(result: dict[str, Any]) -> str:
    """Returns a line with machine, versions, and the engines that are missing."""
    machine, settings = result["machine"], result["settings"]
    versions = {name: version for each in result["engines"].values() for name, version in each.items()}
    versions.update(result["versions"])  # of this process; the IPEX environment has others
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    missing = "; ".join(f"{name} ({reason})" for name, reason in result["left_out"].items())
    priority = ", at real-time priority beside other work" if machine.get("priority") == "real-time" else ""
    return (
        f"{machine['cpu']} (family {machine['family']}, model {machine['model']}), {machine['cores']} cores, "
        f"{settings['threads']} threads; {shown}{priority}; {result['date'][:10]}, commit {result['commit'][:10]}."
    ) + (f" Not measured: {missing}." if missing else "")


def _answers(agreements: dict[str, Any], name: str) -> list[str]:
    values = agreements.get(name)
    return ["", ""] if values is None else [f"{values['same_label']:.1f} %", f"{values['cosine']:.4f}"]


def _spread(times: dict[str, Any], digits: int) -> str:
    low, high = times["quartiles"]
    return f"{times['median']:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _tail(times: dict[str, Any]) -> str:
    return f"{times['p50']:.2f} / {times['p95']:.2f}" if "p50" in times else f"{times['median']:.2f}"


def _section(intro: str, headings: list[str], rows: list[list[str]], source: str = "") -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    table = "\n".join([intro, "", lines[0], "|---" * len(headings) + "|", *lines[1:]])
    return f"{table}\n\n{source}" if source else table


def instruction_sets(result: dict) -> str:
    """Renders the microseconds per text of every instruction set of a processor with AMX."""
    columns = result["microseconds per text"]
    names = next(iter(columns.values()))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{times[name]:.0f}' for times in columns.values())} |" for name in names]
    intro = (
        f"**Instruction sets**, MiniLM of 6 layers, exits 1/2/3/4/6, INT8, {result['texts']} sentences of SST-2 sorted "
        "by length: microseconds per text without tokenization, medians of interleaved runs. The logits of all "
        "instruction sets are equal to the bit."
    )
    note = f" {result['note']}" if "note" in result else ""
    return "\n".join([intro, "", *lines, "", record.footer(result) + note])


def start(result: dict) -> str:
    """Renders the time from the start of a process to its first answer, memory and sizes."""
    sizes = result["environments"]
    lines = [
        "| | seconds | resident memory, MB | of which weights, MB | installed packages, MB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {each['seconds']:.2f} | {each['resident_megabytes']:.0f} | {each['weights_megabytes']:.0f} "
        f"| {sizes[each['environment']]['megabytes']:.0f} |"
        for name, each in result["contenders"].items()
    ]
    intro = (
        "**Start-up**: time from the start of a process to its first answer, median of "
        f"{result['settings']['repeats']} processes with a warm page cache, memory, and size of the environment."
    )
    return "\n".join([intro, "", *lines, "", record.footer(result)])


def calls(result: dict) -> str:
    """Renders the time of `predict` per text, by its parts."""
    settings = result["settings"]
    parts = ("predict", "engine", "reading", "other")
    lines = ["| call, dictionaries returned | `predict` | engine | reading | other Python |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {' | '.join(f'{each[part]:.1f}' for part in parts)} |"
        for name, each in result["microseconds_per_text"].items()
        if not name.endswith("as arrays")
    ]
    intro = (
        f"**A call of `predict`**, MiniLM of 6 layers in INT8, exits certified by `accelerate`, {settings['rows']} "
        f"short sentences of SST-2 ({settings['tokens_per_text']} tokens on average), {settings['threads']} threads: "
        "microseconds per text, medians. Reading is tokenization and packing."
    )
    return "\n".join([intro, "", *lines, "", record.footer(result)])
