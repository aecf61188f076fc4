"""Writes tables of `benchmarks/results` into the README and `docs/benchmarks`, between the markers of each file.

python benchmarks/report.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial

import contexts_report
import encoders_report
import engines_report
import headline_report
import policies_plot
import policies_report
from end_to_end import plot as end_to_end_plot
from end_to_end import report as end_to_end_report
from record import RESULTS, ROOT, footer
from serving import report as serving_report
from token_dropping import report as token_dropping

MARKERS = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)

PICTURES = ROOT / "docs" / "benchmarks"


def main() -> None:
    write("README.md", headline_report.table())
    write(
        "docs/benchmarks/int8.md",
        render(quantization, "quantization_default"),
        render(partial(agreement, "native"), "native_agreement"),
        render(family_agreement, "family_agreement"),
    )
    write(
        "docs/benchmarks/engines.md",
        render(engines_report.sections, "engines"),
        render(engines_report.mixes, "exit_mixes"),
        render(contexts_report.section, "contexts"),
        render(engines_report.operations, "operations"),
        render(engines_report.instruction_sets, "instruction_sets"),
        render(engines_report.start, "start"),
        render(engines_report.calls, "calls"),
        *(render(encoders_report.tables, path.stem) for path in sorted(RESULTS.glob("encoders*.json"))),
    )
    if (RESULTS / "end_to_end.json").is_file():
        end_to_end = read("end_to_end")
        for name, task in end_to_end["tasks"].items():
            end_to_end_plot.draw(task, PICTURES / f"end_to_end_{name}.png")
        write("docs/benchmarks/end-to-end.md", *end_to_end_report.sections(end_to_end))
    write(
        "docs/benchmarks/calibration.md",
        render(policies_report.guarantee, "guarantee"),
        render(policies_report.tuning_shares, "guarantee_split"),
        render(policies_report.paired_tests, "paired_tests"),
        render(policies_report.task_guarantee, "task_guarantee"),
        render(ways, "policies"),
        render(policies_report.cost_table, "cost_table"),
        render(policies_report.deadlines, "deadlines"),
    )
    if (RESULTS / "token_dropping.json").is_file():
        write("docs/benchmarks/token-dropping.md", *token_dropping.sections(read("token_dropping")))
    if (RESULTS / "serving.json").is_file():
        serving = read("serving")
        serving_report.draw_peers(serving, PICTURES / "serving_peers.png")
        simulation = read("serving_simulation") if (RESULTS / "serving_simulation.json").is_file() else None
        if simulation:
            serving_report.draw_simulation(simulation, PICTURES / "serving_simulation.png")
        write("docs/benchmarks/serving.md", *serving_report.sections(serving, simulation))


def read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def render(section: Callable[[dict], str], name: str) -> str:
    """Renders a result as Markdown; returns an empty string if it is not measured."""
    return section(read(name)) if (RESULTS / f"{name}.json").is_file() else ""


def ways(result: dict) -> str:
    """Renders the exit criteria, and draws their picture."""
    policies_plot.draw(result, PICTURES / "policies.png")
    return f"{policies_report.ways(result)}\n\n![Accuracy over milliseconds of four exit criteria](policies.png)"


def write(name: str, *sections: str) -> None:
    """Replaces the text between the markers of a file by the sections that are not empty."""
    path = ROOT / name
    tables = "\n\n".join(filter(None, sections))
    tables += "\n" if tables else ""
    text, count = MARKERS.subn(lambda match: match[1] + tables + match[2], path.read_text())
    if count != 1:
        raise SystemExit(f"{name} needs exactly one pair of result markers.")
    path.write_text(text)


def quantization(result: dict) -> str:
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
            f"**INT8 recipes** ({compressors}). MiniLM of 6 layers, private layers, exits {exits}; percent. "
            f"Ranges are observed on {settings['observed']} rows and temperatures fitted on {settings['judged']} "
            f"others; neither are used for training or reporting. Reported on the first {settings['reported']} "
            "validation rows, with the reference backend. INT8 encoder layers have "
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
            "between the two largest logits of the reference. The engine "
            "[rounds differently](../concepts/backends.md#rounding-in-int8) between its INT8 products, which moves "
            "some activations to the next of their levels.",
            "",
            *lines,
            "",
            footer(result),
        ]
    )


def family_agreement(result: dict) -> str:
    """Renders the agreement of the `native` backend with the reference for models of several families."""
    settings = result["settings"]
    lines = [
        "| family | task | recipe | accuracy per exit | same label, per exit | largest margin where labels differ "
        "| median margin of all | mean difference of logits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, recipes in result["results"].items():
        family, _, task = name.partition(" ")
        for recipe, values in recipes.items():
            margin = values["largest_margin_where_they_differ"]
            lines.append(
                f"| {family} | {task} | {recipe} | {_slashed(values['accuracy_per_exit'])} "
                f"| {_slashed(values['same_label_per_exit'], 2)} | {'' if margin is None else f'{margin:.3f}'} "
                f"| {values['median_margin']:.2f} | {values['mean_difference_of_logits']:.1e} |"
            )
    shape = settings["shape"]
    return "\n".join(
        [
            f"**The `native` backend and the reference, several families**, INT8, first {settings['rows']} validation "
            f"rows, percent. Small models ({shape['num_hidden_layers']} layers of {shape['hidden_size']} features), "
            f"trained from random weights for {settings['steps']} steps of {settings['batch']} rows: no "
            "pretrained weights of these families were at hand, so that the accuracy is not that of the families.",
            "",
            *lines,
            "",
            footer(result),
        ]
    )


if __name__ == "__main__":
    main()
