"""Writes tables of `benchmarks/results` into the README and `docs/benchmarks`, between the markers of each file.

python benchmarks/report.py
"""

from __future__ import annotations

import json
import re

import encoders_report
import engines_plot
import engines_report
import headline_report
import policies_plot
import policies_report
import task_report
from record import RESULTS, ROOT, footer
from token_dropping import report as token_dropping

MARKERS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)

PICTURES = ROOT / "docs" / "benchmarks"
ENVIRONMENTS = {"default": "default environment", "ipex": "IPEX environment"}


def main() -> None:
    write("README.md", headline_report.table())
    quantized = [quantization(read(f"quantization_{name}"), title) for name, title in ENVIRONMENTS.items()]
    write(
        "docs/benchmarks/int8.md",
        *quantized,
        ipex_shapes(read("ipex_speed")),
        ipex_sst2(read("ipex_speed")),
        backends(read("ipex_speed")),
        *(agreement(name, read(f"{name}_agreement")) for name in ("native", "ipex")),
    )
    if (RESULTS / "engines.json").is_file():
        engines_plot.draw(read("engines"), PICTURES / "engines.png")
        write(
            "docs/benchmarks/engines.md",
            *engines_report.sections(read("engines")),
            engines_report.mixes(read("exit_mixes")),
            engines_report.operations(read("operations")),
            engines_report.instruction_sets(read("instruction_sets")),
            engines_report.start(read("start")),
            *([encoders_report.tables(read("encoders"))] if (RESULTS / "encoders.json").is_file() else []),
        )

    policies_plot.draw(read("policies"), PICTURES / "policies.png")
    write(
        "docs/benchmarks/calibration.md",
        policies_report.guarantee(read("guarantee")),
        *([task_report.guarantee(read("task_guarantee"))] if (RESULTS / "task_guarantee.json").is_file() else []),
        policies_report.ways(read("policies")),
        policies_report.cost_table(read("cost_table")),
        policies_report.deadlines(read("deadlines")),
    )
    if (RESULTS / "token_dropping.json").is_file():
        write("docs/benchmarks/token-dropping.md", *token_dropping.sections(read("token_dropping")))


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def write(name: str, *sections: str) -> None:
    """Replaces the text between the markers of a file by the sections that are not empty."""
    path = ROOT / name
    tables = "\n\n".join(filter(None, sections))
    tables += "\n" if tables else ""
    text, count = MARKERS.subn(lambda match: match[1] + tables + match[2], path.read_text())
    if count != 1:
        raise SystemExit(f"{name} needs exactly one pair of result markers.")
    path.write_text(text)


def quantization(result: dict, environment: str) -> str:
    """Renders accuracy per exit, temperatures and calibration errors of every recipe on every task."""
    settings, versions = result["settings"], result["compressors"]
    compressors = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    lines = [
        "| task | recipe | accuracy per exit | same label as fp32 | temperatures | calibration error, T = 1 → fitted "
        "| policy: accuracy, layers |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, figures in result["tasks"].items():
        for recipe, values in {"fp32": figures["float32"], **figures["recipes"]}.items():
            error, policy = values["calibration_error"], values["early_exit"]
            selected = f" ({values['taken']}{_float_layers(values)})" if recipe == "auto" else ""
            same = _slashed(values["same_label_as_float32"]) if "same_label_as_float32" in values else ""
            lines.append(
                f"| {task} | {recipe}{selected} | {_slashed(values['accuracy'])} | {same} "
                f"| {_slashed(values['temperatures'], 2)} "
                f"| {_slashed(error['temperature 1'], 1, 100)} → {_slashed(error['fitted'], 1, 100)} "
                f"| {policy['accuracy']:.1f}, {policy['mean_layers']:.2f} |"
            )
    first = next(iter(result["tasks"].values()))
    shares = [values["bytes"]["encoder"] / first["float32"]["bytes"]["encoder"] for values in first["recipes"].values()]
    exits = "/".join(map(str, first["exits"]))
    return "\n".join(
        [
            f"**Every recipe, {environment}** ({compressors}). MiniLM of 6 layers, SWEET, exits {exits}; percent. "
            f"Ranges from {settings['observed']} rows, temperatures from {settings['judged']} others, none of them "
            f"trained or reported on; reported on the first {settings['reported']} validation rows (SST-2: 872), by "
            f"the INT8 reference. The encoder layers take {100 * min(shares):.0f} to {100 * max(shares):.0f} % of "
            "their bytes in fp32.",
            "",
            *lines,
            "",
            footer(result),
        ]
    )


def _float_layers(values: dict) -> str:
    return f", {len(values['float_layers'])} layers in float" if values["float_layers"] else ""


def _slashed(values: list, digits: int = 1, factor: float = 1.0) -> str:
    return " / ".join(f"{factor * value:.{digits}f}" for value in values)


def ipex_shapes(result: dict) -> str:
    """Renders full depth beside monolithic graphs, and the time of each exit, on fixed shapes."""
    lines = [
        "| shape | batch | monolith: IPEX's own | the same layers | full depth, probes included | × own "
        "| × same layers | leaving at each exit, ms | share of the layers' ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for shape, tables in result["shapes"].items():
        exits = result["settings"]["exits"][shape]
        for batch, table in tables.items():
            times = {name: value["median"] for name, value in table["milliseconds"].items()}
            early = " / ".join(f"{times[f'exit {exit_}']:.1f}" for exit_ in exits[:-1])
            shares = " / ".join(f"{value:.2f}" for value in table["realised_share_of_layer_ratio"].values())
            own, same = times["monolith, IPEX's own"], times["monolith, the artifact's layers"]
            lines.append(
                f"| {shape} {'/'.join(map(str, exits))} | {batch} | {own:.1f} | {same:.1f} "
                f"| {times[f'exit {exits[-1]}']:.1f} | {table['full_depth_against_ipex_own']:.2f} "
                f"| {table['full_depth_against_same_layers']:.2f} | {early} | {shares} |"
            )
    return "\n".join(
        [
            f"**The `ipex` backend in INT8 against monoliths**, milliseconds per batch, random weights, "
            f"{result['settings']['threads']} threads. A monolith is one TorchScript that runs every layer in full: "
            "IPEX's own quantization of the Hugging Face model, and the artifact's own layers. The last column is the "
            "speed-up over full depth divided by layers in all over layers run (1: time falls as layers do).",
            "",
            *lines,
            "",
            footer(result, f", IPEX {result['ipex']}"),
        ]
    )


def ipex_sst2(result: dict) -> str:
    """Renders times and accuracy on SST-2 with trained weights."""
    figures = result["sst2"]
    lines = ["| | batch 1: ms | × IPEX's own | batch 32: ms | × IPEX's own | accuracy | layers |", "|---" * 7 + "|"]
    names = list(figures["batch 1"]["milliseconds_per_sentence"])
    for name in names:
        cells = []
        for size in (1, 32):
            table = figures[f"batch {size}"]
            cells += [
                f"{table['milliseconds_per_sentence'][name]['median']:.2f}",
                f"{table['against_ipex_own'][name]:.2f}",
            ]
        answers = figures["answers"].get(name.removeprefix("threshold "))
        cells += ["", ""] if answers is None else [f"{answers['accuracy']:.1f}", f"{answers['mean_layers']:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    made, bound = figures["compilations"]["made"], figures["compilations"]["bound"]
    return "\n".join(
        [
            f"**SST-2, trained MiniLM in INT8**, {figures['rows']} validation sentences of {figures['mean_tokens']} "
            "tokens on average, milliseconds per sentence, every shape warm; the monoliths get their batches sorted by "
            f"length. Shapes compiled by the backend: {made}; never more than {bound}.",
            "",
            *lines,
        ]
    )


def backends(result: dict) -> str:
    """Renders the times of every backend and precision on the same sentences."""
    tables = result["backends"]
    names = list(next(iter(tables.values())))
    lines = ["| milliseconds per sentence | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {title} | " + " | ".join(f"{times[name]['median']:.2f}" for name in names) + " |"
        for title, times in tables.items()
    ]
    return "\n".join(["**Backends and precisions**, the same MiniLM and sentences.", "", *lines])


def agreement(backend: str, result: dict) -> str:
    """Renders the agreement of a backend with the reference."""
    lines = [
        "| task | artifact | rows | same label, per exit | labels that differ | their largest margin "
        "| median margin | same exit under the policy |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, artifacts in result["tasks"].items():
        for name, values in artifacts.items():
            margin = values["largest_margin_where_they_differ"]
            lines.append(
                f"| {task} | {name} | {values['rows']} | {_slashed(values['same_label_per_exit'], 2)} "
                f"| {values['labels_that_differ']} | {'' if margin is None else f'{margin:.3f}'} "
                f"| {values['median_margin']:.2f} | {values['same_exit_under_the_policy']:.2f} |"
            )
    return "\n".join(
        [
            f"**The `{backend}` backend against the reference**, validation rows, percent; a margin is the difference "
            "between the reference's two best logits. Labels that differ are near ties: another order of float sums "
            "puts an input on the other side of a rounding step.",
            "",
            *lines,
            "",
            footer(result, f", IPEX {result['ipex']}" if "ipex" in result else ""),
        ]
    )


if __name__ == "__main__":
    main()
