"""Tables of `results/engines.json`, as Markdown."""

from __future__ import annotations

from typing import Any


def sections(result: dict[str, Any]) -> list[str]:
    """One section per workload that was run, and what it was run on."""
    parts = []
    if "dense" in result:
        parts.append(dense(result["dense"]))
    if "lengths" in result:
        parts.append(lengths(result["lengths"]))
    parts += [trained(task, figures) for task, figures in result.get("trained", {}).items()]
    return [*parts, foot(result)]


def dense(figures: dict[str, Any]) -> str:
    """Milliseconds per batch, share of the limit, and answers."""
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
        f"per token; attention's products, not counted, {work['attention'] / 1e6:.1f} M. Probing every exit takes "
        f"{figures['probing_against_without_exits']:.2f} times as long as the same layers without exits.",
        ["engine", "ms", "G multiply-adds/s", "of the limit", "same label", "cosine"],
        lines,
    )


def lengths(figures: dict[str, Any]) -> str:
    """One at a time, as they come, and sorted by length."""
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
        "and texts per second in batches of 32, as they come and sorted by length.",
        ["engine", "one by one, ms", "batches as they come", "sorted", "same label", "cosine"],
        lines,
    )


def trained(task: str, figures: dict[str, Any]) -> str:
    """Early exit against the peers at full depth."""
    single, ordered = (figures[name]["milliseconds_per_text"] for name in ("one by one", "sorted"))
    lines = []
    for name, times in single.items():
        layers = figures["mean_layers"].get(name)
        lines.append(
            [
                name,
                _tail(times),
                f"{ordered[name]['median']:.3f}",
                f"{1000 / ordered[name]['median']:.0f}",
                f"{figures['accuracy'][name]:.1f}",
                f"{figures['exits'][-1] if layers is None else layers:.2f}",
            ]
        )
    return _section(
        f"**{task}**, MiniLM of {figures['exits'][-1]} layers trained by SWEET, exits "
        f"{'/'.join(map(str, figures['exits']))}, {figures['rows']} validation rows of {figures['mean_tokens']} tokens "
        "on average; peers at full depth. Milliseconds per text one at a time (median / 95th percentile) and in "
        "batches of 32 sorted by length.",
        ["engine", "one by one, ms", "batches, ms", "texts/s", "accuracy", "layers"],
        lines,
    )


def foot(result: dict[str, Any]) -> str:
    """Machine, versions, and who is missing."""
    machine, settings = result["machine"], result["settings"]
    versions = {name: version for each in result["engines"].values() for name, version in each.items()}
    versions.update(result["versions"])  # of this process, where IPEX's environment has others
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    missing = "; ".join(f"{name} ({reason})" for name, reason in result["left_out"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {settings['threads']} threads; {shown}; commit "
        f"{result['commit'][:10]}." + (f" Left out: {missing}." if missing else "")
    )


def _answers(judged: dict[str, Any], name: str) -> list[str]:
    values = judged.get(name)
    return ["", ""] if values is None else [f"{values['same_label']:.1f} %", f"{values['cosine']:.4f}"]


def _spread(times: dict[str, Any], digits: int) -> str:
    low, high = times["quartiles"]
    return f"{times['median']:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _tail(times: dict[str, Any]) -> str:
    return f"{times['p50']:.2f} / {times['p95']:.2f}" if "p50" in times else f"{times['median']:.2f}"


def _section(intro: str, headings: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    return "\n".join([intro, "", lines[0], "|---" * len(headings) + "|", *lines[1:]])
