"""Early exit beside every engine that people would otherwise run, each in its best configuration (`peers/`).

    python benchmarks/compare_engines.py --ipex-python .venv-ipex/bin/python

Three workloads, the same weights for all: `dense`, the shape of BERT-base on 8 rows of 128 tokens; `lengths`, the same
model on the sentences of SST-2 validation, one at a time and in batches of 32, as they come and sorted by length;
`trained`, MiniLM trained by SWEET, early exit against the peers at full depth (from `train_baselines.py` and
`quantize_recipes.py`). Interleaved, warm, equal threads, without tokenization or padding for anyone. An engine that is
not installed is left out, as is what needs data or models that are not there, and the result says so.
"""

from __future__ import annotations

import argparse
import gc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import ENGINES, REFERENCE, engine_class
from peers.base import Engine
from peers.ipex_int8 import IpexInt8
from peers.judging import agreement, multiply_adds, sweet_op_peak
from peers.sweet import Sweet
from quantize_recipes import FIRST_FREE_ROW
from record import DATA, RUNS, measure, pretrained, provenance, read_task, refuse_busy_machine, write_result
from shapes import EXITS, random_artifact, random_batch, without_exits
from transformers import AutoTokenizer

from itrex_sweet.commands.bench import threads
from itrex_sweet.runtime.backends import BACKENDS
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization import TextReader

SHAPE, DENSE = "BERT-base", (8, 128)
BATCH = 32
THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
PAUSE = 0.25  # seconds; some libraries' threads spin for 0.2
WORKLOADS = ("dense", "lengths", "trained")
DEFAULT_ENGINES = [name for name in ENGINES if name != "torch.compile bf16"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=DEFAULT_ENGINES)
    parser.add_argument("--ipex-python", type=Path, help="Python of an environment with the [ipex] extra")
    parser.add_argument("--backend", choices=BACKENDS, default="native" if "native" in BACKENDS else "torch")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"], help="of the workload `trained`")
    parser.add_argument("--recipe", default="static", help="of our INT8 artifacts, as quantize_recipes.py left them")
    parser.add_argument("--rows", type=int, default=872, help="of each task at most")
    parser.add_argument("--calibration", type=int, default=200, help="rows whose ranges are observed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--name", default="engines", help="of the result")
    parser.add_argument("--busy", action="store_true", help="time although the machine is busy; for trying out")
    options = parser.parse_args()
    with threads(options.threads):
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Runs the workloads asked for, and writes the result as it grows."""
    IpexInt8.python = options.ipex_python
    if not options.busy:
        refuse_busy_machine(3.0)
    names = ("backend", "threads", "repeats", "rows", "calibration", "recipe", "busy")
    result: dict[str, Any] = {
        **provenance(),
        "settings": {**{name: getattr(options, name) for name in names}, "exits": EXITS[SHAPE]},
        "engines": {},
        "left_out": {},
    }
    if {"dense", "lengths"} & set(options.workloads):
        random_weights(options, result)
    if "trained" in options.workloads:
        result["trained"] = {}
        for task in options.tasks:
            if absent := missing_for(task, options):
                result["left_out"][task] = absent
                print(f"left out: {task}: {absent}", flush=True)
                continue
            result["trained"][task] = trained(task, options, result)
            write_result(options.name, result)
    print(write_result(options.name, result))


# ---------------------------------------------------------------------------------- workloads


def random_weights(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """The workloads `dense` and `lengths`, on the same loaded engines."""
    artifact = random_artifact(SHAPE)
    ours = Sweet(artifact.directory, options.backend)
    plain = Sweet(without_exits(artifact).directory, options.backend)
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=128)
    reader = TextReader(tokenizer, artifact.config["max_position_embeddings"], None)
    has_data = (DATA / "sst2").is_dir()
    calibration = random_batch(artifact, options.calibration, 64)
    if has_data:
        calibration = reader.read(read_task("sst2", "train", options.calibration)[0], None, "truncate").batch
    engines = loaded(artifact.directory.parent / "float32", calibration, options, result)
    if "dense" in options.workloads:
        result["dense"] = dense(engines, ours, plain, options)
        write_result(options.name, result)
    if "lengths" in options.workloads and not has_data:
        result["left_out"]["lengths"] = "the research data is not there"
    elif "lengths" in options.workloads:
        sentences = reader.read(read_task("sst2", "validation", options.rows)[0], None, "truncate").batch
        result["lengths"] = lengths(engines, ours, plain, sentences, options)
        write_result(options.name, result)
    close(engines)


def dense(engines: dict[str, Engine], ours: Sweet, plain: Sweet, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per batch of rows of one length, and the share of the processor's limit that they reach."""
    batch = random_batch(ours.model.artifact, *DENSE)
    table: dict[str, np.ndarray] = {}
    contenders = peers_contenders(engines, "dense", [batch])
    contenders[f"{ours.name}, full depth"] = ours.batch_by_batch([batch], ours.full_depth())
    contenders[f"{plain.name}, without exits"] = plain.batch_by_batch([batch], plain.full_depth())
    for exit_, policy in list(ours.leaving_at_each_exit().items())[:-1]:
        contenders[f"{ours.name}, leaving at {exit_}"] = ours.batch_by_batch([batch], policy)
    for name, engine in engines.items():
        table[name] = engine.answers("dense")
    table[f"{ours.name}, full depth"] = ours.answers(batch, ours.full_depth()).logits
    table[f"{plain.name}, without exits"] = plain.answers(batch, plain.full_depth()).logits
    peaks = [sweet_op_peak(options.threads)]
    times = measure(contenders, 3 * options.repeats, 1, PAUSE)
    peaks.append(sweet_op_peak(options.threads))
    work, tokens = multiply_adds(ours.model.artifact.config, DENSE[1]), DENSE[0] * DENSE[1]
    rates = {name: tokens * work["linear"] / (value["median"] / 1000) for name, value in times.items()}
    limit = max(peak for peak in peaks) if None not in peaks else None
    figures = {
        "shape": SHAPE,
        "rows": DENSE[0],
        "tokens": DENSE[1],
        "milliseconds": times,
        "multiply_adds_per_token": work,
        "limit_multiply_adds_per_second": peaks,
        "linear_multiply_adds_per_second": {name: round(rate / 1e9, 1) * 1e9 for name, rate in rates.items()},
        "share_of_limit": {
            name: None if limit is None else round(rate / limit, 4)
            for name, rate in rates.items()
            if "leaving" not in name
        },
        "probing_against_without_exits": round(
            times[f"{ours.name}, full depth"]["median"] / times[f"{plain.name}, without exits"]["median"], 4
        ),
        "answers": judged(table),
        "choices": contenders.choices,
    }
    shown("dense", times)
    return figures


def lengths(
    engines: dict[str, Engine], ours: Sweet, plain: Sweet, rows: TokenBatch, options: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds per text of sentences as long as they are: one at a time, in batches as they come, and sorted."""
    batches = cut(rows)
    result: dict[str, Any] = {"rows": len(rows), "mean_tokens": round(float(rows.lengths.mean()), 1)}
    for name, given in batches.items():
        table: dict[str, np.ndarray] = {}
        contenders = peers_contenders(engines, name, given)
        for each, title in ((ours, "full depth"), (plain, "without exits")):
            policy = each.full_depth()
            contenders[f"{each.name}, {title}"] = (
                each.all_rows(rows, policy, BATCH) if name == "sorted" else each.batch_by_batch(given, policy)
            )
            table[f"{each.name}, {title}"] = each.answers(rows, policy).logits
        for engine_name, engine in engines.items():
            table[engine_name] = in_order(engine.answers(name), rows, name)
        times = measure(contenders, options.repeats, len(rows), PAUSE)
        result[name] = {"milliseconds_per_text": times, "answers": judged(table), "choices": contenders.choices}
        shown(name, times)
    return result


def trained(task: str, options: argparse.Namespace, result: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds per text and accuracy: early exit at several thresholds, and every peer at full depth."""
    folder = RUNS / task
    ours = Sweet(folder / f"int8-{options.recipe}-default", options.backend)
    texts, labels = read_task(task, "validation", options.rows)
    rows, truth = ours.model.read(texts), np.asarray(labels)
    free = slice(FIRST_FREE_ROW, FIRST_FREE_ROW + options.calibration)
    calibration = ours.model.read(read_task(task, "train_20k")[0][free])
    engines = loaded(folder / "sweet-0", calibration, options, result)
    policies = {
        **{f"threshold {value:g}": ours.model.policy.with_threshold(value) for value in THRESHOLDS},
        "full depth": ours.full_depth(),
        "stored policy": ours.model.policy,
    }
    batches = cut(rows)
    figures: dict[str, Any] = {
        "rows": len(rows),
        "mean_tokens": round(float(rows.lengths.mean()), 1),
        "exits": list(ours.model.artifact.exits),
        "stored_thresholds": [round(value, 4) for value in ours.model.policy.thresholds],
    }
    for name in ("one by one", "sorted"):
        contenders = peers_contenders(engines, name, batches[name])
        for title, policy in policies.items():
            contenders[f"{ours.name}, {title}"] = (
                ours.all_rows(rows, policy, BATCH)
                if name == "sorted"
                else ours.batch_by_batch(batches[name], policy)
            )  # fmt: skip
        times = measure(contenders, options.repeats, len(rows), PAUSE)
        figures[name] = {"milliseconds_per_text": times, "choices": contenders.choices}
        shown(f"{task}, {name}", times)
    table = {name: in_order(engine.answers("sorted"), rows, "sorted") for name, engine in engines.items()}
    table[f"{ours.name}, full depth"] = ours.answers(rows, ours.full_depth()).logits
    figures["answers"] = judged(table)
    figures["accuracy"] = {name: percent_right(logits, truth) for name, logits in table.items()}
    figures["mean_layers"] = {}
    for title, policy in policies.items():
        answers = ours.answers(rows, policy)
        figures["accuracy"][f"{ours.name}, {title}"] = percent_right(answers.logits, truth)
        figures["mean_layers"][f"{ours.name}, {title}"] = round(ours.mean_layers(answers), 3)
    close(engines)
    return figures


# ---------------------------------------------------------------------------------- parts of them


def missing_for(task: str, options: argparse.Namespace) -> str | None:
    """What the workload `trained` lacks for a task."""
    wanted = (DATA / task, RUNS / task / "sweet-0", RUNS / task / f"int8-{options.recipe}-default")
    return next((f"{'/'.join(folder.parts[-2:])} is not there" for folder in wanted if not folder.is_dir()), None)


class Contenders(dict):
    """Name → what to time, and what engines chose for these batches."""

    def __init__(self) -> None:
        super().__init__()
        self.choices: dict[str, Any] = {}


def peers_contenders(engines: dict[str, Engine], key: str, batches: list[TokenBatch]) -> Contenders:
    """Every engine with these batches loaded under a name."""
    contenders = Contenders()
    for name, engine in engines.items():
        if choice := engine.load(key, batches):
            contenders.choices[name] = choice
        contenders[name] = partial(engine.run, key)
    return contenders


def judged(table: dict[str, np.ndarray]) -> dict[str, Any]:
    """How far everyone's answers are from the reference's; nothing without a reference."""
    return {name: agreement(table[REFERENCE], logits) for name, logits in table.items() if REFERENCE in table}


def loaded(
    model: Path, calibration: TokenBatch, options: argparse.Namespace, result: dict[str, Any]
) -> dict[str, Engine]:
    """The engines asked for on a model; those that cannot run are noted in the result."""
    engines = {}
    for name in options.engines:
        try:
            engines[name] = engine_class(name)(model, calibration, options.threads)
        except Exception as error:  # an engine that fails must not take the others' figures along
            result["left_out"][name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            print(f"left out: {name}: {error}", flush=True)
        else:
            result["engines"][name] = engines[name].versions()
            print(f"loaded: {name}", flush=True)
    return engines


def close(engines: dict[str, Engine]) -> None:
    """Lets go of their memory."""
    for engine in engines.values():
        engine.close()
    engines.clear()
    gc.collect()


def cut(rows: TokenBatch) -> dict[str, list[TokenBatch]]:
    """The ways in which texts come: one by one, batches in natural order, batches of rows sorted by length."""
    order = np.arange(len(rows))
    by_length = np.argsort(rows.lengths, kind="stable")

    def parts(order: np.ndarray, size: int) -> list[TokenBatch]:
        return [rows.select(order[start : start + size]) for start in range(0, len(order), size)]

    return {"one by one": parts(order, 1), "natural": parts(order, BATCH), "sorted": parts(by_length, BATCH)}


def in_order(logits: np.ndarray, rows: TokenBatch, name: str) -> np.ndarray:
    """Logits of batches cut by `cut`, in the order of the rows."""
    if name != "sorted":
        return logits
    back = np.empty_like(logits)
    back[np.argsort(rows.lengths, kind="stable")] = logits
    return back


def percent_right(logits: np.ndarray, truth: np.ndarray) -> float:
    return round(100 * float((logits.argmax(-1) == truth).mean()), 2)


def shown(name: str, times: dict[str, dict[str, float]]) -> None:
    """Medians as they come."""
    print(name, {key: value["median"] for key, value in times.items()}, flush=True)


if __name__ == "__main__":
    main()
