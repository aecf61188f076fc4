"""Renders `results/end_to_end.json` as Markdown: a summary, a table per task, cold starts, the split of our time."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import geometric_mean, mean
from typing import Any

from record import footer

OURS = "early exit, chosen"
CERTIFIED = "early exit, certified"
FULL = "full depth"
SIZES = {"32": "batches of 32", "1": "one at a time"}
BETTER, EQUAL = 0.0005, 1.0  # accuracy and speed above which a rival counts as better or equal

Figures = Mapping[str, Any]


def sections(result: Figures) -> list[str]:
    """Returns the parts of the page."""
    tasks = result["tasks"]
    return [
        summary(result),
        *(table(name, task) for name, task in tasks.items()),
        static_rivals(tasks),
        split(tasks),
        cold(result),
    ]


def speed(task: Figures, title: str, size: str) -> float:
    """Returns texts per second of a contender."""
    return 1000 / task["contenders"][title]["milliseconds"][size]["median"]


def best_peer(task: Figures, size: str) -> str:
    """Returns the fastest INT8 engine that runs the plain model at full depth."""
    peers = [title for title, each in task["contenders"].items() if each["kind"] == "peer" and "INT8" in title]
    return max(peers, key=lambda title: speed(task, title, size))


def ratio(task: Figures, title: str, size: str) -> float:
    """Returns how many times as many texts per second a contender answers as the best INT8 peer."""
    return speed(task, title, size) / speed(task, best_peer(task, size), size)


def keeps(task: Figures, title: str, share: float) -> bool:
    """Returns whether a contender keeps a share of plain fine-tuning's accuracy."""
    return task["contenders"][title]["accuracy"] >= share * task["plain"]


def summary(result: Figures) -> str:
    """Renders ratios to the best INT8 peer and the accuracy kept, per task and in the mean."""
    tasks, settings = result["tasks"], result["settings"]
    shown = [OURS, CERTIFIED, FULL]
    lines = [
        "| task | plain | " + " | ".join(f"{title}: kept | batches | single" for title in shown) + " |",
        "|---|--:" + "|--:|--:|--:" * len(shown) + "|",
    ]
    for task in tasks.values():
        cells = [f"{task['title']} | {100 * task['plain']:.1f}"]
        for title in shown:
            kept = task["contenders"][title]["accuracy"] / task["plain"]
            cells.append(f"{100 * kept:.1f} % | {ratio(task, title, '32'):.1f} × | {ratio(task, title, '1'):.1f} ×")
        lines.append("| " + " | ".join(cells) + " |")
    for name, average in (("mean", mean), ("geometric mean", geometric_mean)):
        cells = [f"**{name}** | "]
        for title in shown:
            kept = [task for task in tasks.values() if keeps(task, title, settings["kept"])]
            means = [average([ratio(task, title, size) for task in kept]) if kept else None for size in ("32", "1")]
            cells.append(" | " + " | ".join("–" if value is None else f"**{value:.1f} ×**" for value in means))
        lines.append("| " + " | ".join(cells) + " |")
    kept = sum(keeps(task, OURS, settings["kept"]) for task in tasks.values())
    return "\n".join(
        [
            f"**Texts per second as a multiple of the fastest INT8 engine at full depth**, strings to labels, "
            f"{settings['threads']} threads, the first {settings['texts']} validation rows of a task in their order; "
            f"the share of plain fine-tuning's accuracy that is kept, on all validation rows. The chosen policy keeps "
            f"{100 * settings['kept']:g} % of it in {kept} of {len(tasks)} tasks; a mean is of the tasks in which its "
            "column does.",
            "",
            *lines,
            "",
            footer(result, versions(result)),
        ]
    )


def versions(result: Figures) -> str:
    """Returns the versions of the engines for the footer."""
    found = {name: version for each in result["engines"].values() for name, version in each.items()}
    return "".join(f", {name} {found[name]}" for name in ("openvino", "nncf", "onnxruntime") if name in found)


def table(name: str, task: Figures) -> str:
    """Renders accuracy, speed and ratio of every contender of a task."""
    lines = [
        "| | accuracy | layers | texts/s, batches | × INT8 peer | texts/s, single | × INT8 peer |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for title, each in task["contenders"].items():
        layers = f"{each['layers']:.2f}" if "layers" in each else ""
        cells = [f"{100 * each['accuracy']:.1f}", layers]
        for size in SIZES:
            cells += [f"{speed(task, title, size):,.0f}", f"{ratio(task, title, size):.2f}"]
        own = {"ours": f"**{title}**", "peer": f"{title}, full depth"}
        lines.append(f"| {own.get(each['kind'], title)} | " + " | ".join(cells) + " |")
    policies = task["policies"]
    refused = policies["certified-32"].get("refused")
    chosen = (
        f"{policies['rows']} held-out rows choose the policies; plain fine-tuning has "
        f"{100 * policies['plain']:.1f} % on them."
    )
    return "\n".join(
        [
            f"### {task['title']}",
            "",
            f"{task['rows']} validation rows. {chosen}"
            + (f" Nothing could be certified, so the certified policy is full depth: {refused}" if refused else ""),
            "",
            f"![{task['title']}: accuracy over texts per second](end_to_end_{name}.png)",
            "",
            *lines,
        ]
    )


def beaten_by(task: Figures, size: str, ours: str = OURS) -> list[str]:
    """Returns the rivals with at least our accuracy and at least our speed, fastest first."""
    own = task["contenders"][ours]["accuracy"]
    better = [
        title
        for title, each in task["contenders"].items()
        if each["kind"] == "rival"
        and each["accuracy"] >= own - BETTER
        and ratio(task, title, size) >= EQUAL * ratio(task, ours, size)
    ]
    return sorted(better, key=lambda title: -speed(task, title, size))


def static_rivals(tasks: Figures) -> str:
    """Says on which tasks a static model has our accuracy at our speed or more."""
    lines = ["| task | batches of 32 | one at a time |", "|---|---|---|"]
    for task in tasks.values():
        cells = []
        for size in SIZES:
            better = beaten_by(task, size)
            cells.append(
                "; ".join(
                    f"{title} ({100 * task['contenders'][title]['accuracy']:.1f} %, "
                    f"{speed(task, title, size) / speed(task, OURS, size):.2f} × our speed)"
                    for title in better[:2]
                )
                or "none"
            )
        lines.append(f"| {task['title']} | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            "### Static models that are as good",
            "",
            "Models without early exit that have at least the accuracy of the chosen policy on the validation rows "
            "(less 0.05 points) and at least its speed. Where one is listed, prefer it; `itrex-sweet calibrate` "
            "reports fixed exits of this kind.",
            "",
            *lines,
        ]
    )


def split(tasks: Figures) -> str:
    """Renders microseconds per text of tokenizer, engine and the rest of Python."""
    lines = [
        "| task | policy | call | all, µs | tokenizer | engine | other | tokenizer and other |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for task in tasks.values():
        for size, name in SIZES.items():
            for title, each in task["split"][size].items():
                share = (each["tokenizer"] + each["other"]) / each["all"]
                numbers = " | ".join(f"{each[part]:.1f}" for part in ("all", "tokenizer", "engine", "other"))
                lines.append(f"| {task['title']} | {title} | {name} | {numbers} | {100 * share:.0f} % |")
    return "\n".join(["### Where our time goes", "", "Microseconds per text.", "", *lines])


def cold(result: Figures) -> str:
    """Renders the seconds from the start of a process to its first label."""
    if not result.get("cold"):
        return ""
    lines = ["| | seconds |", "|---|--:|", *(f"| {name} | {value:.2f} |" for name, value in result["cold"].items())]
    note = "A fresh Python process, imports and loading included, to the end of the process after one label."
    return "\n".join(["### Cold start", "", note, "", *lines])
