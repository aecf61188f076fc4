"""Compares the native engine with other inference engines, each in its best configuration (`peers/`).

    python benchmarks/compare_engines.py --ipex-python .venv-ipex/bin/python

Two workloads with the same random weights for all engines: `dense`, the shape of BERT-base on 8 rows of 128 tokens;
`lengths`, the same model on the sentences of SST-2 validation, one at a time and in batches of 32, in natural order and
sorted by length. Runs are interleaved and warm, with equal threads, without tokenization and padding. Engines that are
not installed are left out and listed in the result, and so are the sentences without the research data.
`end_to_end/run.py` measures trained models from strings to labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from peers import ENGINES
from peers.base import Engine
from peers.comparison import multiply_adds, sweet_op_peak
from peers.contenders import (
    BATCH,
    agreements,
    close,
    load_engines,
    peer_contenders,
    print_medians,
    restore_order,
    split_batches,
)
from peers.ipex_int8 import IpexInt8
from peers.sweet import Sweet
from record import DATA, check_idle_machine, measure, pretrained, provenance, read_task, write_result
from shapes import EXITS, random_artifact, random_batch, without_exits
from transformers import AutoTokenizer

from itrex_sweet.commands.bench import threads
from itrex_sweet.runtime.backends import BACKENDS
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization import TextReader

SHAPE, DENSE = "BERT-base", (8, 128)
PAUSE = 0.25  # seconds; threads of some libraries spin for 0.2
WORKLOADS = ("dense", "lengths")
DEFAULT_ENGINES = [name for name in ENGINES if name != "torch.compile bf16"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=DEFAULT_ENGINES)
    parser.add_argument("--ipex-python", type=Path, help="Python of an environment with the [ipex] extra")
    parser.add_argument("--backend", choices=BACKENDS, default="native" if "native" in BACKENDS else "torch")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--rows", type=int, default=872, help="sentences")
    parser.add_argument("--calibration", type=int, default=200, help="calibration rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--name", default="engines", help="name of the result")
    parser.add_argument("--busy", action="store_true", help="skip the check that the machine is idle")
    options = parser.parse_args()
    with threads(options.threads):
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Runs the selected workloads, and writes the result after each."""
    IpexInt8.python = options.ipex_python
    if not options.busy:
        check_idle_machine(3.0)
    names = ("backend", "threads", "repeats", "rows", "calibration", "busy")
    result: dict[str, Any] = {
        **provenance(),
        "settings": {**{name: getattr(options, name) for name in names}, "exits": EXITS[SHAPE]},
        "engines": {},
        "left_out": {},
    }
    artifact = random_artifact(SHAPE)
    ours = Sweet(artifact.directory, options.backend)
    plain = Sweet(without_exits(artifact).directory, options.backend)
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=128)
    reader = TextReader(tokenizer, artifact.config["max_position_embeddings"], None)
    has_data = (DATA / "sst2").is_dir()
    calibration = random_batch(artifact, options.calibration, 64)
    if has_data:
        calibration = reader.read(read_task("sst2", "train", options.calibration)[0], None, "truncate").batch
    engines = load_engines(artifact.directory.parent / "float32", calibration, options, result)
    if "dense" in options.workloads:
        result["dense"] = dense(engines, ours, plain, options)
        write_result(options.name, result)
    if "lengths" in options.workloads and not has_data:
        result["left_out"]["lengths"] = "the research data is missing"
    elif "lengths" in options.workloads:
        sentences = reader.read(read_task("sst2", "validation", options.rows)[0], None, "truncate").batch
        result["lengths"] = lengths(engines, ours, plain, sentences, options)
        write_result(options.name, result)
    close(engines)
    print(write_result(options.name, result))


def dense(engines: dict[str, Engine], ours: Sweet, plain: Sweet, options: argparse.Namespace) -> dict[str, Any]:
    """Measures milliseconds per batch of rows of equal length, and the share of the processor's peak rate."""
    batch = random_batch(ours.model.artifact, *DENSE)
    table: dict[str, np.ndarray] = {}
    contenders = peer_contenders(engines, "dense", [batch])
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
        "answers": agreements(table),
        "choices": contenders.choices,
    }
    print_medians("dense", times)
    return figures


def lengths(
    engines: dict[str, Engine], ours: Sweet, plain: Sweet, rows: TokenBatch, options: argparse.Namespace
) -> dict[str, Any]:
    """Measures milliseconds per text: one at a time, in batches in natural order, and in batches sorted by length."""
    batches = split_batches(rows)
    result: dict[str, Any] = {"rows": len(rows), "mean_tokens": round(float(rows.lengths.mean()), 1)}
    for name, of_name in batches.items():
        table: dict[str, np.ndarray] = {}
        contenders = peer_contenders(engines, name, of_name)
        for each, title in ((ours, "full depth"), (plain, "without exits")):
            policy = each.full_depth()
            contenders[f"{each.name}, {title}"] = (
                each.all_rows(rows, policy, BATCH) if name == "sorted" else each.batch_by_batch(of_name, policy)
            )
            table[f"{each.name}, {title}"] = each.answers(rows, policy).logits
        for engine_name, engine in engines.items():
            table[engine_name] = restore_order(engine.answers(name), rows, name)
        times = measure(contenders, options.repeats, len(rows), PAUSE)
        result[name] = {"milliseconds_per_text": times, "answers": agreements(table), "choices": contenders.choices}
        print_medians(name, times)
    return result


if __name__ == "__main__":
    main()
