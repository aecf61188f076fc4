"""Writes the figures of `benchmarks/results` into the README, between its two marks.

python benchmarks/report.py
"""

from __future__ import annotations

import json
import re

from record import RESULTS, ROOT

MARKS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)


def main() -> None:
    sections = [training(json.loads((RESULTS / "sst2_training.json").read_text()))]
    sections.append(speed(json.loads((RESULTS / "sst2_speed.json").read_text())))
    readme = ROOT / "README.md"
    text, count = MARKS.subn(lambda found: found[1] + "\n\n".join(sections) + "\n" + found[2], readme.read_text())
    if count != 1:
        raise SystemExit("README.md needs exactly one pair of result marks.")
    readme.write_text(text)


def training(result: dict) -> str:
    """Accuracy per exit, one line per method."""
    settings, exits = result["settings"], result["settings"]["exits"]
    names = {
        "sweet": "SWEET",
        "sweet+0.1": "SWEET, gradient scale 0.1",
        "joint": "Early-Exit (joint)",
        "multi-model": "Multi-Model",
    }
    lines = ["| | " + " | ".join(f"exit {exit_}" for exit_ in exits) + " |", "|---" * (len(exits) + 1) + "|"]
    for method, figures in result["methods"].items():
        spread = figures["deviation"] or [None] * len(exits)
        cells = [
            f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")
            for mean, deviation in zip(figures["mean"], spread, strict=True)
        ]
        lines.append(f"| {names[method]} | " + " | ".join(cells) + " |")
    seeds = max(len(figures["runs"]) for figures in result["methods"].values())
    rows, precision = settings["validation_rows"], "bf16" if settings["bf16"] else "fp32"
    intro = (
        f"**Accuracy per exit, in percent.** SST-2 validation ({rows} sentences), MiniLM of 6 layers trained on "
        f"{settings['rows']} sentences for {settings['epochs']:g} epochs in {precision}; "
        + (f"mean ± standard deviation of {seeds} seeds." if seeds > 1 else "one seed.")
    )
    sweet, joint = (result["methods"][method]["mean"] for method in ("sweet", "joint"))
    error = 100 * (sweet[-1] / 100 * (1 - sweet[-1] / 100) / rows) ** 0.5
    outcome = (
        f"Against joint training SWEET is {sweet[0] - joint[0]:+.1f} points at exit {exits[0]} and "
        f"{sweet[-1] - joint[-1]:+.1f} at the last; the standard error of one figure is {error:.1f}."
    )
    return "\n".join([intro, "", *lines, "", outcome])


def speed(result: dict) -> str:
    """Threshold, accuracy, layers and time."""
    milliseconds, settings = result["milliseconds_per_sentence"], result["settings"]
    padded = milliseconds["transformers, padded"]["median"]
    ordered = milliseconds["transformers, padded, sorted by length"]["median"]
    lines = [
        "| threshold | accuracy | mean layers | ms | × padded | × padded, sorted | ms, each batch alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["thresholds"]:
        ours = milliseconds[f"all rows, threshold {row['threshold']}"]["median"]
        alone = milliseconds[f"batch by batch, threshold {row['threshold']}"]["median"]
        lines.append(
            f"| {row['threshold']:g} | {row['accuracy']:.1f} | {row['mean_layers']:.2f} | {ours:.2f} "
            f"| {padded / ours:.1f} | {ordered / ours:.1f} | {alone:.2f} |"
        )
    machine, versions = result["machine"], result["versions"]
    intro = (
        f"**Time against the threshold**, `torch` backend in fp32, batches of {settings['batch_size']}, "
        f"{settings['threads']} threads; the same weights in full by transformers take {padded:.2f} ms per sentence, "
        f"padded as a pipeline pads, and {ordered:.2f} ms sorted by length. The last column runs every batch through "
        "by itself, in natural order; the others sort by length and top batches up with survivors. Medians of one "
        "interleaved run."
    )
    foot = (
        f"{machine['cpu']}, {machine['cores']} cores, torch {versions['torch']}, "
        f"transformers {versions['transformers']}; commit {result['commit'][:10]}. "
        "Results with their settings: `benchmarks/results/`."
    )
    return "\n".join([intro, "", *lines, "", foot])


if __name__ == "__main__":
    main()
