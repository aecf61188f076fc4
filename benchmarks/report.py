"""Writes tables of `benchmarks/results` into the README and `docs/benchmarks`, between the markers of each file.

python benchmarks/report.py
"""

from __future__ import annotations

import json
import re

import contexts_report
import encoders_report
import engines_plot
import engines_report
import headline_report
import policies_plot
import policies_report
from end_to_end import plot as end_to_end_plot
from end_to_end import report as end_to_end_report
from record import RESULTS, ROOT, footer
from token_dropping import report as token_dropping

MARKERS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)

PICTURES = ROOT / "docs" / "benchmarks"
SPLIT = "guarantee_split"
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
            *([contexts_report.section(read("contexts"))] if (RESULTS / "contexts.json").is_file() else []),
            engines_report.operations(read("operations")),
            engines_report.instruction_sets(read("instruction_sets")),
            engines_report.start(read("start")),
            *(encoders_report.tables(read(path.stem)) for path in sorted(RESULTS.glob("encoders*.json"))),
        )

    if (RESULTS / "end_to_end.json").is_file():
        end_to_end = read("end_to_end")
        for name, task in end_to_end["tasks"].items():
            end_to_end_plot.draw(task, PICTURES / f"end_to_end_{name}.png")
        write("docs/benchmarks/end-to-end.md", *end_to_end_report.sections(end_to_end))

    policies_plot.draw(read("policies"), PICTURES / "policies.png")
    write(
        "docs/benchmarks/calibration.md",
        policies_report.guarantee(read("guarantee")),
        *([policies_report.tuning_shares(read(SPLIT))] if (RESULTS / f"{SPLIT}.json").is_file() else []),
        policies_report.paired_tests(read("paired_tests")),
        policies_report.task_guarantee(read("task_guarantee")),
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
            f"**INT8 recipes, {environment}** ({compressors}). MiniLM of 6 layers, SWEET, exits {exits}; percent. "
            f"Ranges are observed on {settings['observed']} rows and temperatures fitted on {settings['judged']} "
            f"others; neither are used for training or reporting. Reported on the first {settings['reported']} "
            "validation rows (SST-2: 872), with the reference backend. INT8 encoder layers have "
            f"{100 * min(shares):.0f} to {100 * max(shares):.0f} % of the size of fp32.",
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
        "| shape | batch | monolithic graph: quantized by IPEX | the same layers | full depth, with probes | × IPEX "
        "| × same layers | all rows leave at an exit, ms | speed-up over ratio of layers |",
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
            f"**The `ipex` backend in INT8 and monolithic graphs**, milliseconds per batch, random weights, "
            f"{result['settings']['threads']} threads. A monolithic graph is one TorchScript graph that runs "
            "every layer in full: the Hugging Face model quantized by IPEX, or the layers of the artifact. The last "
            "column is the speed-up over full depth, divided by the number of all layers over the number of layers "
            "run. It is 1 if time is proportional to layers.",
            "",
            *lines,
            "",
            footer(result, f", IPEX {result['ipex']}"),
        ]
    )


def ipex_sst2(result: dict) -> str:
    """Renders times and accuracy on SST-2 with trained weights."""
    figures = result["sst2"]
    lines = ["| | batch 1: ms | speed-up | batch 32: ms | speed-up | accuracy | layers |", "|---" * 7 + "|"]
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
        title = name.replace("monolith, IPEX's own", "monolithic graph, quantized by IPEX")
        title = title.replace("monolith, the", "monolithic graph, the").replace("threshold stored", "stored policy")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    made, bound = figures["compilations"]["made"], figures["compilations"]["bound"]
    return "\n".join(
        [
            f"**SST-2, trained MiniLM in INT8**, {figures['rows']} validation sentences of {figures['mean_tokens']} "
            "tokens on average, milliseconds per sentence, after a warm-up of every shape; batches of the monolithic "
            f"graphs are sorted by length. The backend compiled {made} shapes; the maximum is {bound}.",
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
        "| task | artifact | rows | same label, per exit | labels that differ | largest margin of these "
        "| median margin of all | same exit with the stored policy |",
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
            f"**The `{backend}` backend and the reference**, validation rows, percent; a margin is the difference "
            "between the two largest logits of the reference. Labels differ only where these are nearly equal: another "
            "order of float sums moves an activation to the next INT8 level.",
            "",
            *lines,
            "",
            footer(result, f", IPEX {result['ipex']}" if "ipex" in result else ""),
        ]
    )


if __name__ == "__main__":
    main()
