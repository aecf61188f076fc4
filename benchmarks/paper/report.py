"""Writes tables and pictures of the available runs into `docs/benchmarks`, and the headline table into the README.

python benchmarks/paper/report.py
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import headline_report
import numpy as np
from decoupled import report as decoupled
from decoupled import run_time_report
from record import RESULTS, ROOT, footer
from report import write

from paper import pictures, recipes, time_report
from paper.paired import Results, complete, mean_and_error, p_value
from paper.plan import (
    CHOSEN_ON_SEED,
    EVERY_METHOD,
    METHODS,
    NAMES,
    RECIPE,
    SEEDS,
    TASKS,
    Run,
    by_learning_rate,
    reported,
)


def main() -> None:
    results = read(EVERY_METHOD)
    if not results:
        raise SystemExit("there are no results: run `make paper` first.")
    write("README.md", headline_report.table())
    docs = ROOT / "docs" / "benchmarks"
    paper = {key: result for key, result in results.items() if key[1] in METHODS}
    pictures.scores(paper, docs / "paper_exits.png")
    pictures.curves(paper, docs / "paper_curves.png")
    pictures.conflict(paper, docs / "paper_conflict.png")
    together = {**results, **decoupled.runs()}
    private_exits = (
        [
            decoupled.variants(),
            decoupled.even_attention(),
            decoupled.which_exits(),
            decoupled.frozen(),
            run_time_report.certified(),
            run_time_report.probes(),
            decoupled.bare(),
        ]
        if decoupled.stored()
        else []
    )
    if complete(together, decoupled.METHODS):
        pictures.curves(together, docs / "decoupled_curves.png", decoupled.METHODS)
    path = RESULTS / "paper_clock.json"
    timed = json.loads(path.read_text()) if path.is_file() else None
    if timed:
        pictures.clock(timed["tasks"], docs / "paper_clock.png")
    private_timed = run_time_report.read("decoupled_clock")
    if private_timed:
        pictures.clock(private_timed["tasks"], docs / "decoupled_clock.png")
    write(
        "docs/benchmarks/paper.md",
        what_ran(paper),
        learning_rates(),
        scores(paper),
        claims(paper),
        areas(paper),
        *decoupled.beside_others(together),
        time_report.areas(timed) if timed else "",
        time_report.cheapest(timed, private_timed),
        criteria(paper),
        lora(results),
        conflict(paper),
    )
    if any(method == RECIPE for _, method, _ in results):
        pictures.curves(results, docs / "training_curves.png", (*recipes.BASELINES, RECIPE))
        sections = (
            recipes.on_validation(results),
            recipes.in_pairs(results),
            time_report.minimum_gains(timed) if timed else "",
            recipes.layers_for_99_percent(results),
            recipes.on_the_pool(results),
            recipes.trials(),
            recipes.cost(),
        )
        write("docs/benchmarks/training.md", *private_exits, *sections)


def read(methods: tuple[str, ...]) -> Results:
    """Returns (task, method, seed) → result of the reported run, of those available."""
    runs = {key: reported(*key) for key in itertools.product(TASKS, methods, SEEDS)}
    return {key: run.read() for key, run in runs.items() if run is not None}


def what_ran(results: Results) -> str:
    """Renders the number of runs, and provenance."""
    planned = len(TASKS) * len(METHODS) * len(SEEDS)
    hours = sum(result["seconds"] for result in results.values()) / 3600
    latest = max(results.values(), key=lambda result: result["date"])
    settings = latest["settings"]
    return (
        f"**{len(results)} of {planned} runs have results**, {hours:.1f} hours of one core in total; "
        f"{settings['epochs']:g} epochs in batches of {settings['batch_size']}. Last run: {footer(latest)}"
    )


def learning_rates() -> str:
    """Renders the scores that learning rates were chosen by."""
    tried = {
        (task, method): by_learning_rate(Run(task, method, CHOSEN_ON_SEED, 0.0))
        for task, method in itertools.product(TASKS, (*METHODS, RECIPE))
    }
    rates = sorted({rate for scores in tried.values() for rate in scores})
    lines = ["| task | method | " + " | ".join(f"{rate:g}" for rate in rates) + " |", "|---" * (len(rates) + 2) + "|"]
    for (task, method), scores in tried.items():
        if scores:
            cells = [_cell_of_rate(scores.get(rate), max(scores.values())) for rate in rates]
            lines.append(f"| {task} | {NAMES[method]} | " + " | ".join(cells) + " |")
    intro = (
        f"**Learning rates**: mean score of the exits on rows of the training pool, seed {CHOSEN_ON_SEED}, in percent. "
        "The best is used with every seed."
    )
    return "\n".join([intro, "", *lines])


def _cell_of_rate(score: float | None, best: float) -> str:
    if score is None:
        return "–"
    return f"**{100 * score:.1f}**" if score == best else f"{100 * score:.1f}"


def scores(results: Results) -> str:
    """Renders the score of every exit, mean and deviation over seeds, per task and method, and over all tasks."""
    exits = next(iter(results.values()))["settings"]["exits"]
    lines = ["| task | method | seeds | " + " | ".join(f"exit {exit_}" for exit_ in exits) + " | mean |"]
    lines.append("|---" * (len(exits) + 4) + "|")
    for task, method in itertools.product(TASKS, METHODS):
        table = scores_by_seed(results, task, method)
        if len(table):
            lines.append(f"| {task} | {NAMES[method]} | {len(table)} | " + " | ".join(_with_mean(table)) + " |")
    shared = complete(results, METHODS[:3])
    for method in METHODS:
        runs = [key for key in shared if (key[0], method, key[1]) in results]
        if len(runs) == len(shared) > 1:
            table = np.array([results[task, method, seed]["validation"]["score"] for task, seed in runs])
            cells = [f"**{100 * mean:.1f}**" for mean in (*table.mean(0), table.mean())]
            lines.append(f"| **mean of {len(runs)} runs** | {NAMES[method]} | | " + " | ".join(cells) + " |")
    intro = "**Individual classifiers** (the paper's figure 3): accuracy, of CoLA Matthews correlation, in percent."
    return "\n".join([intro, "", *lines])


def _with_mean(table: np.ndarray) -> list[str]:
    columns = np.concatenate([table, table.mean(axis=1, keepdims=True)], axis=1)
    spread = columns.std(0, ddof=1) if len(columns) > 1 else [None] * columns.shape[1]
    return [
        f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")
        for mean, deviation in zip(columns.mean(0), spread, strict=True)
    ]


def claims(results: Results) -> str:
    """Renders the paper's two claims beside these runs."""
    exits = next(iter(results.values()))["settings"]["exits"]
    lines = [
        "| | paper | here, mean over exits | p | " + " | ".join(f"exit {exit_}" for exit_ in exits) + " | pairs |",
        "|---" * (len(exits) + 5) + "|",
    ]
    for method, claimed in (("multi-model", "+2.3"), ("sweet", "+1.1"), ("paper", "+1.1")):
        pairs = complete(results, (method, "joint"))
        if not pairs:
            continue
        difference = 100 * np.stack(
            [_exit_scores(results, t, method, s) - _exit_scores(results, t, "joint", s) for t, s in pairs]
        )
        means = difference.mean(axis=1)
        cells = " | ".join(f"{value:+.1f}" for value in difference.mean(0))
        lines.append(
            f"| {NAMES[method]} over Early-Exit | {claimed} | {mean_and_error(means)} | {p_value(means)} "
            f"| {cells} | {len(means)} |"
        )
    intro = (
        "**The paper's two claims**, in points; differences of runs with one task and seed, ± their standard error. p: "
        "of an exact two-sided test that flips the signs of these pairs (Fisher's randomization test)."
    )
    return "\n".join([intro, "", *lines])


def areas(results: Results) -> str:
    """Renders the area under the curve by layers of every task and method."""
    tasks = [task for task in TASKS if any(key[0] == task for key in results)]
    lines = ["| method | " + " | ".join(tasks) + " | mean |", "|---" * (len(tasks) + 2) + "|"]
    for method in METHODS:
        values = [
            np.mean(
                [results[t, method, s]["validation"]["area"] for s in SEEDS if (t, method, s) in results] or [np.nan]
            )
            for t in tasks
        ]
        cells = ["–" if np.isnan(value) else f"{100 * value:.1f}" for value in (*values, np.mean(values))]
        lines.append(f"| {NAMES[method]} | " + " | ".join(cells) + " |")
    intro = (
        "**Speed–accuracy curves** (figures 4 and 6): the score averaged over budgets from one layer to the full "
        "depth, one threshold of the largest probability for all exits."
    )
    return "\n".join([intro, "", *lines])


def criteria(results: Results) -> str:
    """Renders the area by layers of other exit criteria, beside max-probability."""
    names = ("max_probability", "entropy", "learned")
    heads = " | ".join(name.replace("_", " ") for name in names)
    lines = [f"| method | {heads} | runs |", "|---" * (len(names) + 2) + "|"]
    for method in ("sweet", "paper", "joint"):
        runs = [result for key, result in results.items() if key[1] == method]
        if runs:
            cells = [f"{100 * np.mean([result['validation']['areas'][name] for result in runs]):.2f}" for name in names]
            lines.append(f"| {NAMES[method]} | " + " | ".join(cells) + f" | {len(runs)} |")
    intro = "**Other exit strategies** (the blog's third takeaway): the same area, mean over runs."
    return "\n".join([intro, "", *lines])


def lora(results: Results) -> str:
    """Renders LoRA beside full fine-tuning."""
    tuned = sorted({task for task, method, _ in results if method.endswith("+lora")}, key=TASKS.index)
    if not tuned:
        return ""
    lines = ["| task | method | exit 1 | exit 2 | exit 4 | exit 6 |", "|---|---|---|---|---|---|"]
    for task, method in itertools.product(tuned, ("sweet", "sweet+lora", "joint", "joint+lora")):
        table = scores_by_seed(results, task, method)
        if len(table):
            name = NAMES[method.removesuffix("+lora")] + (", LoRA" if method.endswith("+lora") else "")
            lines.append(f"| {task} | {name} | " + " | ".join(f"{100 * mean:.1f}" for mean in table.mean(0)) + " |")
    intro = (
        "**LoRA** (rank 16) beside full fine-tuning, in percent, mean over the seeds with results; each at the best "
        "learning rate that was tried with it."
    )
    return "\n".join([intro, "", *lines])


def conflict(results: Results) -> str:
    """Renders the mean cosine of gradients per pair of exits."""
    pairs = pictures.exit_pairs(results)
    lines = ["| method | " + " | ".join(pairs) + " | measured |", "|---" * (len(pairs) + 2) + "|"]
    for method in METHODS:
        measured = [
            result["gradient_conflict"]
            for key, result in results.items()
            if key[1] == method and result["gradient_conflict"]
        ]
        if measured:
            cells = [f"{np.mean([np.mean(each['cosines'][pair]) for each in measured]):+.3f}" for pair in pairs]
            total = sum(each["measured"] for each in measured)
            lines.append(f"| {NAMES[method]} | " + " | ".join(cells) + f" | {total} |")
    intro = (
        "**Gradient conflict** (figure 2 of the blog): cosine of two exits' gradients on a layer's weights, mean over "
        "the layers that get gradients of both, training steps and tasks. 0.000 is exact where gradients are cut."
    )
    return "\n".join([intro, "", *lines])


def scores_by_seed(results: Results, task: str, method: str) -> np.ndarray:
    """Returns the scores, (seeds, exits)."""
    return np.array([_exit_scores(results, task, method, seed) for seed in SEEDS if (task, method, seed) in results])


def _exit_scores(results: Results, task: str, method: str, seed: int) -> np.ndarray:
    return np.array(results[task, method, seed]["validation"]["score"])


if __name__ == "__main__":
    main()
