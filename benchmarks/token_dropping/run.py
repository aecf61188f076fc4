"""Drops or merges tokens between the layers of fine-tuned models with exits: accuracy, token-layers and time.

    python benchmarks/token_dropping/run.py times              # on an idle machine, half a minute
    python benchmarks/token_dropping/run.py bounds accuracy --tasks qnli rte
    python benchmarks/token_dropping/run.py long

`times` measures the native engine by length. `bounds` assumes that dropping changes no answer, and computes how much
cheaper the certified policy would be. `accuracy` runs schedules (`schedules.py`) on rows
of each task, at full depth and combined with early exit; `grid` and `prototype` run other schedules at full depth;
`long` is `accuracy` on texts above 200 tokens, which join 20 sentences of SST-2 and are classified by its model.
`combined` chooses policies from the logits that `accuracy` saved, `equality` compares the forward pass with stored
logits. Nothing is trained but the learned scores of tokens.

Uses the models of `benchmarks/decoupled/run.py` with seed 0. Thresholds and schedules are chosen on rows of the
training pool, results are of validation rows. Each part is written to `benchmarks/results/token_dropping.json` when it
is done.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from decoupled.artifacts import FOLDER
from decoupled.variants import CHOSEN
from fine_tuning import MAX_LENGTH
from paper import plan
from paper.run import TRAINED, training_rows
from record import RUNS, read_task
from transformers import AutoTokenizer

from token_dropping import costs, dropping, policies
from token_dropping.combining import EXITS, bounds_of, combined, prices, save
from token_dropping.forward import Forward
from token_dropping.schedules import LEARNED, NONE, Schedule, candidates, grid, prototype, reported
from token_dropping.scores import distilled
from token_dropping.stored import PARTS, store
from token_dropping.texts import Rows, long_texts, rows_of

TIMES_OF = "qnli"
LONG, LONGEST = "long", 512
MORE = {"grid": grid, "prototype": prototype}  # schedules that are run at full depth only


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=(*PARTS, LONG))
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--logits", type=Path, default=RUNS / "token_dropping")
    parser.add_argument("--pool", type=int, default=500, help="rows that choose thresholds and schedules")
    parser.add_argument("--rows", type=int, default=1000, help="validation rows")
    parser.add_argument("--scored", type=int, default=256, help="training rows that train the learned scores")
    parser.add_argument("--threads", type=int, default=2, help="of the native engine; torch uses one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts = {"scored": options.scored, "pool": options.pool, "validation": options.rows}
    for part in options.parts:
        if part == "times":
            folder = options.folder / f"{TIMES_OF}-{options.seed}" / "int8"
            times = {size: each.to_dict() for size, each in costs.measured_times(folder, options.threads).items()}
            store(part, "batch", {**times, "threads": options.threads})
        elif part == LONG:
            kept = (reported(long=True), candidates(long=True))
            found = accuracy(long_texts(counts), "sst2", LONG, options, *kept, LONGEST)
            store("accuracy", LONG, found)
            store("combined", LONG, combined(logits_file(LONG, options), candidates(long=True)))
        else:
            for task in options.tasks:
                if part == "bounds":
                    store(part, task, bounds(task, options))
                elif part == "combined":
                    store(part, task, combined(logits_file(task, options), candidates()))
                elif part == "equality":
                    store(part, task, equality(task, options))
                else:
                    kept = (MORE[part](), []) if part in MORE else (reported(), candidates())
                    store(part, task, accuracy(rows_of(task, counts), task, task, options, *kept))


def logits_file(name: str, options: argparse.Namespace) -> Path:
    """Returns the file of the logits of a task or of the long texts."""
    return options.logits / f"{name}-{options.seed}.npz"


def bounds(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the certified cost with all tokens, and by how much it falls with schedules that change no answer."""
    folder = options.folder / f"{task}-{options.seed}"
    tokenizer = AutoTokenizer.from_pretrained(folder / "plain")
    texts, labels = training_rows(task, TRAINED)[1]
    logits = stored_logits(folder, "pool")
    columns = texts if isinstance(texts[0], str) else zip(*texts, strict=True)
    columns = [columns] if isinstance(texts[0], str) else list(map(list, columns))
    lengths = np.array([len(ids) for ids in tokenizer(*columns, truncation=True, max_length=MAX_LENGTH)["input_ids"]])
    return bounds_of(logits, np.array(labels), lengths, EXITS)


def stored_logits(folder: Path, split: str) -> np.ndarray:
    """Returns logits (rows, exits, labels) that were computed after the training of a run."""
    path = folder / f"{CHOSEN}.npz"
    return np.load(path)[split] if path.is_file() else np.load(folder / f"{split}.npz")[CHOSEN]


def equality(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the largest difference from the stored logits of validation rows, in float32 and in bfloat16, and the
    agreement of the labels; with a schedule that keeps every token.
    """
    folder = options.folder / f"{task}-{options.seed}"
    tokenizer = AutoTokenizer.from_pretrained(folder / "plain")
    texts, _ = read_task(task, "validation", options.rows)
    expected = stored_logits(folder, "validation")[: options.rows]
    result: dict[str, Any] = {"rows": len(texts)}
    for name, bfloat16 in (("float32", False), ("bfloat16", True)):
        model = Forward(folder / "float32", bfloat16)
        logits = dropping.run(model, dropping.undropped(model, tokenizer, texts, MAX_LENGTH), Schedule(((2, 1.0),)))
        result[name] = {
            "largest difference": float(f"{np.abs(logits - expected).max():.2g}"),
            "agreement": round(float((logits.argmax(-1) == expected.argmax(-1))[:, -1].mean()), 5),
        }
    return result


def accuracy(
    rows: dict[str, Rows],
    task: str,
    name: str,
    options: argparse.Namespace,
    schedules: list[Schedule],
    among: list[Schedule],
    max_length: int = MAX_LENGTH,
) -> dict[str, Any]:
    """Runs schedules on rows, and returns their figures at full depth and, of those in `among`, combined with early
    exit.
    """
    start = time.process_time()
    folder = options.folder / f"{task}-{options.seed}"
    model = Forward(folder / "float32", bfloat16=True)
    tokenizer = AutoTokenizer.from_pretrained(folder / "plain", model_max_length=max_length)
    layers = sorted({layer for each in schedules if each.score == LEARNED for layer, _ in each.steps})
    scored = dropping.undropped(model, tokenizer, rows["scored"][0], max_length) if layers else []
    scorers = {layer: distilled(model, layer, scored) for layer in layers}
    print(task, "scores trained", round(time.process_time() - start), flush=True)
    logits: dict[str, dict[str, np.ndarray]] = {}
    lengths = {}
    splits = ("validation", "pool") if among else ("validation",)
    for split in splits:
        batches = dropping.undropped(model, tokenizer, rows[split][0], max_length)
        lengths[split] = dropping.lengths_of(batches)
        logits[split] = {NONE.name: dropping.logits_of(batches, model.exits)}
        print(task, split, "full depth", round(time.process_time() - start), flush=True)
        for schedule in schedules if split == "validation" else among:
            logits[split][schedule.name] = dropping.run(model, batches, schedule, scorers)
        print(task, split, round(time.process_time() - start), flush=True)
    labels = {split: np.array(rows[split][1]) for split in splits}
    result = {
        "rows": {split: len(rows[split][1]) for split in ("scored", *splits)},
        "tokens": {split: round(float(each.mean()), 1) for split, each in lengths.items()},
        "full depth": at_full_depth(
            schedules, logits["validation"], labels["validation"], lengths["validation"], model.exits
        ),
    }
    if among:
        save(logits_file(name, options), logits, labels, lengths)
    if max_length == LONGEST:  # too few rows to certify anything
        pool = (logits["pool"][NONE.name], labels["pool"], lengths["pool"])
        result["bounds"] = bounds_of(*pool, model.exits, policies.observed_choices)
    result["seconds"] = round(time.process_time() - start, 1)
    return result


def at_full_depth(
    schedules: list[Schedule],
    logits: dict[str, np.ndarray],
    labels: np.ndarray,
    lengths: np.ndarray,
    exits: tuple[int, ...],
) -> dict[str, Any]:
    """Returns accuracy, agreement with all tokens, and cost of each schedule without early exit."""
    answers = logits[NONE.name][:, -1].argmax(-1)
    found = {}
    for schedule in (NONE, *schedules):
        predicted = logits[schedule.name][:, -1].argmax(-1)
        found[schedule.name] = {
            "accuracy": round(float((predicted == labels).mean()), 5),
            "agreement": round(float((predicted == answers).mean()), 5),
            "cost": {
                unit: round(
                    float(price(schedule, lengths).through[:, -1].sum() / price(NONE, lengths).through[:, -1].sum()), 4
                )
                for unit, price in prices(exits).items()
            },
        }
    return found


if __name__ == "__main__":
    main()
