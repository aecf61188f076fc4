"""Renders results of exits with private layers as Markdown, beside the paper's methods and the two-stage recipe."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from paper import store
from paper.paired import Results, complete, mean_and_error, p_value
from paper.pictures import by_layers
from paper.plan import CHOSEN_ON_SEED, DECOUPLED, LABELS_ALONE, NAMES, RECIPE, SEEDS, TASKS
from paper.recipes import BASELINES, cheapest
from record import footer

from decoupled.scoring import AMONG, PROBE
from decoupled.variants import CHOSEN, CONCLUSIONS, COPIED, DEFAULT, VARIANTS

OTHERS = (*BASELINES, RECIPE)
FROZEN = "-frozen"
WITH_EVEN = "-even"
SHOWN = {DECOUPLED: (WITH_EVEN, CHOSEN), LABELS_ALONE: ("", DEFAULT)}  # the kind of their runs, and the variant
METHODS = (*OTHERS, *SHOWN)
TOGETHER = "trained together with the model, from labels"
CHEAPEST = 8  # subsets of exits in the table
COMPARED = ("1/2/4/6", "1/2/3/6", "1/2/3/4/5/6", "2/4/6", "3/6")


@cache
def stored(kind: str = "") -> dict[tuple[str, int], dict[str, Any]]:
    """Returns (task, seed) → result, of those available."""
    results = store.read(store.DECOUPLED)
    names = {(task, seed): f"{task}-{seed}{kind}" for task in TASKS for seed in SEEDS}
    return {key: results[name] for key, name in names.items() if name in results}


def runs() -> Results:
    """Returns the variants that are compared with other methods, in the form of the paper's runs."""
    return {
        (task, method, seed): _as_run(result, result["variants"][variant])
        for method, (kind, variant) in SHOWN.items()
        for (task, seed), result in stored(kind).items()
        if "curve" in result["variants"].get(variant, {}).get("validation", {})
    }


def _as_run(result: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    splits = {split: variant[split] for split in ("pool", "validation")}
    exits = variant["validation"]["exits"]
    provenance = {name: result[name] for name in ("date", "commit", "machine", "versions")}
    return {**provenance, "settings": {**result["settings"], "exits": exits}, "layers_run": exits, **splits}


def beside_others(results: Results) -> list[str]:
    """Renders the tables on validation rows, if a task has every method."""
    return [on_validation(results), in_pairs(results)] if complete(results, METHODS) else []


def on_validation(results: Results) -> str:
    """Renders every task and method with the same seeds."""
    pairs = complete(results, METHODS)
    lines = [
        "| task | method | exit 1 | exit 2 | exit 4 | exit 6 | area | share of the layers at 99 % of plain |",
        "|---" * 8 + "|",
    ]
    for task in (*sorted({task for task, _ in pairs}, key=TASKS.index), None):
        for method in METHODS:
            these = [results[t, method, s] for t, s in pairs if task in (t, None)]
            # Decoupled exits leave the plain model as it is; on another device it differs from Multi-Model's.
            source = method if method in SHOWN else "multi-model"
            plain = [results[t, source, s]["validation"]["score"][-1] for t, s in pairs if task in (t, None)]
            exits = these[0]["settings"]["exits"]
            scores = 100 * np.mean([run["validation"]["score"] for run in these], axis=0)
            cells = [f"{scores[exits.index(exit_)]:.1f}" for exit_ in (1, 2, 4, 6)]
            area = 100 * np.mean([by_layers(run) for run in these])
            shares = [cheapest(run, 0.99 * score) for run, score in zip(these, plain, strict=True)]
            name = "**mean**" if task is None else task
            lines.append(f"| {name} | {NAMES[method]} | {' | '.join(cells)} | {area:.2f} | {_shares(shares)} |")
    seeds = ", ".join(map(str, sorted({seed for _, seed in pairs})))
    intro = (
        f"**Exits with private layers beside the other methods**, validation rows, mean over these seeds: {seeds}; in "
        "percent. Decoupled exits are trained in one run of two epochs together with the plain fine-tuning, which is "
        "their last exit, at the learning rate of Multi-Model; private layers have three times that rate in every "
        "task. Half of their loss comes from the labels and half from the last exit, and exits 1 and 2 begin with even "
        "attention, as by default; or all of it comes from the labels, and all begin as copies. "
        f"{_trained_on_gpu()}The share of the layers is that of the cheapest threshold on validation; a run with "
        "no such threshold counts as all layers."
    )
    latest = max(stored(WITH_EVEN).values(), key=lambda result: result["date"])
    return "\n".join([intro, "", *lines, "", footer(latest)])


def _trained_on_gpu() -> str:
    runs = [
        f"{task} {seed}"
        for (task, seed), result in stored().items()
        if result["settings"].get("device", "cpu") != "cpu"
    ]
    return f"With labels alone, these were trained on a GPU, the others on the CPU: {', '.join(runs)}. " if runs else ""


def _shares(shares: list[float | None]) -> str:
    missed = sum(share is None for share in shares)
    mean = np.mean([1.0 if share is None else share for share in shares])
    return f"{mean:.0%}" + (f" (none in {missed} of {len(shares)})" if missed else "")


def in_pairs(results: Results) -> str:
    """Renders paired differences between decoupled exits and each other method."""
    pairs = complete(results, METHODS)
    lines = ["| over | area | p | first exit | p | last exit |", "|---" * 6 + "|"]
    for method in SHOWN:
        for other in OTHERS:
            area, first, last = (
                np.array([100 * (of(results[t, method, s]) - of(results[t, other, s])) for t, s in pairs])
                for of in (
                    lambda run: np.mean(by_layers(run)),
                    lambda run: run["validation"]["score"][0],
                    lambda run: run["validation"]["score"][-1],
                )
            )
            lines.append(
                f"| {NAMES[method]} over {NAMES[other]} | {mean_and_error(area)} | {p_value(area)} "
                f"| {mean_and_error(first)} | {p_value(first)} | {mean_and_error(last)} |"
            )
    intro = (
        f"**In pairs**: mean difference of the {len(pairs)} runs with the same task and seed, in points, ± its "
        "standard error. p: of an exact two-sided test that flips the signs of these pairs."
    )
    return "\n".join([intro, "", *lines])


def variants() -> str:
    """Renders the hypothesis of every variant, and its results on the pool."""
    results = {task: result for (task, seed), result in stored().items() if seed == CHOSEN_ON_SEED}
    tasks = [task for task in TASKS if task in results]
    lines = [
        f"| exits | hypothesis | {' | '.join(tasks)} | difference from three times the rate | conclusion |",
        "|---" * (len(tasks) + 4) + "|",
    ]
    for name, variant in VARIANTS.items():
        for shown in (name, f"{name}, every layer"):
            pools = {
                task: result["variants"][shown]["pool"]
                for task, result in results.items()
                if shown in result["variants"]
            }
            if not pools:
                continue
            gains = [100 * (pool["area"] - _default(results[task])["area"]) for task, pool in pools.items()]
            spared = [100 * (_needed(pool) - _needed(_default(results[task]))) for task, pool in pools.items()]
            cells = " | ".join(_exits_and_area(pools.get(task)) for task in tasks)
            every = shown != name
            gain = "" if shown == DEFAULT else f"{np.mean(gains):+.2f}, {np.mean(spared):+.0f} %"
            lines.append(
                f"| {variant.description}{', after every layer' if every else ''} "
                f"| {'exits do not affect one another: +0.3' if every else variant.expected} | {cells} | {gain} "
                f"| {CONCLUSIONS.get(shown, '')} |"
            )
    intro = (
        f"**Trials of private exits**, seed {CHOSEN_ON_SEED}, all beside one fine-tuning, on rows of the training "
        "pool, in percent: exits 1/2/4/6 (or 1 to 6), the area, and the share of the layers at 99 % of the last exit's "
        "score; the differences are means over the tasks that have both. Hypotheses were written before the "
        "measurement."
    )
    return "\n".join([intro, "", *lines])


def even_attention() -> str:
    """Renders exits whose private layers begin with even attention beside those that begin as copies."""
    results = stored(WITH_EVEN)
    if not results:
        return ""
    lines = ["| task | seed | private layers begin | exit 1 | exit 2 | exit 4 | exit 6 | area | layers at 99 % |"]
    lines.append("|---" * 9 + "|")
    gains = []
    for (task, seed), result in sorted(results.items(), key=lambda item: (TASKS.index(item[0][0]), item[0][1])):
        pair = [result["variants"][name]["validation"] for name in (COPIED, CHOSEN)]
        for begins, run in zip(("as copies", "with even attention"), pair, strict=True):
            scores = " | ".join(f"{100 * score:.1f}" for score in run["score"])
            area, share = f"{100 * run['area']:.2f}", _shares([run["share at 99 %"]])
            lines.append(f"| {task} | {seed} | {begins} | {scores} | {area} | {share} |")
        copied, even = ([run["area"], *run["score"][:2]] for run in pair)
        gains.append(100 * np.subtract(even, copied))
    area, first, second = map(mean_and_error, np.transpose(gains))
    intro = (
        f"**Even attention at the start**, {len(gains)} runs: both kinds of exits beside one fine-tuning each, half of "
        f"the loss from the last exit, validation rows, in percent. With even attention the area changes by {area}, "
        f"exit 1 by {first} and exit 2 by {second} points."
    )
    return "\n".join([intro, "", *lines, "", footer(max(results.values(), key=lambda result: result["date"]))])


def which_exits() -> str:
    """Renders subsets of exits after every layer, by the mean over the tasks."""
    results = {task: result for (task, seed), result in stored().items() if seed == CHOSEN_ON_SEED}
    among = {task: result[AMONG][DEFAULT]["pool"] for task, result in results.items()}
    rows = []
    for exits in next(iter(among.values())):
        shares, times = (
            np.mean([1.0 if (value := of_task[exits][key]) is None else value for of_task in among.values()])
            for key in ("share at 99 %", "time at 99 %")
        )
        rows.append((times, exits, f"| {exits} | {shares:.1%} | {times:.1%} |"))
    rows.sort()
    shown = [line for place, (_, exits, line) in enumerate(rows) if place < CHEAPEST or exits in COMPARED]
    lines = ["| exits | layers at 99 % | time at 99 % |", "|---" * 3 + "|", *shown]
    intro = (
        f"**Which exits**, chosen among those after every layer, on rows of the pool, seed {CHOSEN_ON_SEED}, mean over "
        f"{', '.join(among)}: the share of the layers at 99 % of the score of plain fine-tuning, and of the time of "
        f"full depth if a probe takes {PROBE:g} of the time of a layer. The {CHEAPEST} cheapest of {len(rows)}, and "
        "some others to compare with."
    )
    return "\n".join([intro, "", *lines])


def _default(result: dict[str, Any]) -> dict[str, Any]:
    return result["variants"][DEFAULT]["pool"]


def _exits_and_area(pool: dict[str, Any] | None) -> str:
    if pool is None:
        return "–"
    scores = "/".join(f"{100 * score:.1f}" for score in pool["score"])
    return f"{scores}, {100 * pool['area']:.2f}, {_needed(pool):.0%}"


def _needed(pool: dict[str, Any]) -> float:
    """Returns the share of the layers at 99 % of the last exit's score."""
    return 1.0 if pool["share at 99 %"] is None else pool["share at 99 %"]


def frozen() -> str:
    """Renders exits added to fine-tuned models, mean over seeds."""
    results = stored(FROZEN)
    if not results:
        return ""
    lines = [
        "| task | traffic | score at exits 1/2/4, and in full | agreement with the full model | area "
        "| share of the layers at 99 % |",
        "|---" * 6 + "|",
    ]
    for task in sorted({task for task, _ in results}, key=TASKS.index):
        of_task = {seed: result for (other, seed), result in results.items() if other == task}
        first = next(iter(of_task.values()))
        for name in (*first["variants"], TOGETHER):
            runs = [
                (stored()[task, seed]["variants"][DEFAULT] if name == TOGETHER else result["variants"][name])[
                    "validation"
                ]
                for seed, result in of_task.items()
            ]
            scores, agreement = (np.mean([run[of] for run in runs], axis=0) for of in ("score", "agreement"))
            lines.append(
                f"| {task} | {_shown_as(name, first)} | {'/'.join(f'{100 * score:.1f}' for score in scores)} "
                f"| {'/'.join(f'{100 * share:.1f}' for share in agreement[:-1])} "
                f"| {100 * np.mean([run['area'] for run in runs]):.2f} "
                f"| {_shares([run['share at 99 %'] for run in runs])} |"
            )
    counts = ", ".join(f"{task} {sum(other == task for other, _ in results)}" for task in TASKS)
    cpu = [result for result in results.values() if "device" not in stored()[_key(result)]["settings"]]
    minutes = [
        (result["seconds"]["asking the trunk"] + result["seconds"]["training"][name]) / 60
        for result in cpu
        for name in result["seconds"]["training"]
        if name.startswith("6000 rows") and "no labels" in name
    ]
    intro = (
        "**Exits for a model that is already fine-tuned**: the first 2000 validation rows, in percent, mean over "
        f"seeds (runs: {counts}). The model is frozen and computes the traffic once; exits learn the labels, or "
        "without labels the full model's probabilities, on texts that it was not trained on (CoLA and RTE have too "
        f"few: these use the training rows). 6000 texts take {min(minutes):.1f} to {max(minutes):.1f} minutes on one "
        "CPU core, the model's forward included."
    )
    return "\n".join([intro, "", *lines, "", footer(max(results.values(), key=lambda result: result["date"]))])


def _key(result: dict[str, Any]) -> tuple[str, int]:
    task, seed = result["run"].rsplit("-", 1)
    return task, int(seed)


def _shown_as(name: str, result: dict[str, Any]) -> str:
    if "no labels" not in name:
        return name
    shown = name.replace(name.split()[0], str(_rows(result, name)), 1)
    return shown if result["settings"]["unseen"] else f"{shown} (training rows)"


def bare() -> str:
    """Renders a bare `SweetCallback` beside plain fine-tuning, on the tasks of `bare.py`."""
    stored = store.read(store.DECOUPLED)
    results = [stored[name] for name in sorted(stored) if name.startswith("bare-")]
    if not results:
        return ""
    lines = [
        "| task | threshold | labels | tokens | plain | exits 1/2/4/6 | stored policy | layers |",
        "|---" * 8 + "|",
    ]
    for result in results:
        score = result["score"]
        exits = "/".join(f"{100 * value:.1f}" for name, value in score.items() if name.isdigit())
        lines.append(
            f"| {result['run'].removeprefix('bare-').replace('-', ', seed ')}{_mark(result)} "
            f"| {'recorded' if result['settings']['device'] == 'cpu' else '0.9'} | {result['labels']} "
            f"| {result['tokens']:.0f} | {100 * result['plain']:.1f} | {exits} | {100 * score['stored policy']:.1f} "
            f"| {result['share of the layers']:.0%} |"
        )
    intro = (
        "**A bare callback**, `callbacks=[SweetCallback]`, beside plain fine-tuning with the same arguments and seed, "
        "on tasks built by `benchmarks/decoupled/bare.py`: accuracy in percent, and the share of the layers that the "
        "stored, uncalibrated policy runs. Rows with a recorded threshold were trained on the CPU: training stores a "
        "higher threshold where exits are overconfident, and the weights of the trunk equal those of the plain model "
        "to the bit. The other rows are older: they were trained on a GPU, where gradients are summed in an order that "
        "varies, and their threshold was fixed at 0.9, which loses up to 2.4 points on reviews. Rows with a star were "
        "trained before the private layers of exits 1 and 2 began with even attention: these exits may have stayed at "
        "the frequencies of the labels for a part of the training. For rows with a dagger the plain model was not "
        "trained; its score is that of the last exit."
    )
    return "\n".join([intro, "", *lines, "", footer(max(results, key=lambda result: result["date"]))])


def _mark(result: dict[str, Any]) -> str:
    """Returns a star for a training whose private layers began with the attention of the model's, and a dagger for one
    without the plain model."""
    dagger = "" if "plain" in result["seconds"] else " †"
    return ("" if result.get("first attention") == "even" else " *") + dagger


def _rows(result: dict[str, Any], name: str) -> int:
    return min(int(name.split()[0]), result["settings"]["traffic"])
