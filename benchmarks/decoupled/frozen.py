"""Exits for fine-tuned models: the hidden states of the frozen trunk are computed once, and exits train on them.

    python benchmarks/decoupled/frozen.py --tasks rte cola --seeds 0

Uses the plain models of `benchmarks/decoupled/run.py`. The traffic is unlabelled rows that the model was not trained on
(SST-2, MNLI, QNLI, AG News), or the training rows for tasks with too few rows (CoLA, RTE).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from fine_tuning import MAX_LENGTH, columns_of
from paper import plan, store
from paper.run import POOL, TRAINED, training_rows
from record import provenance, read_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from decoupled.artifacts import FOLDER
from decoupled.run import observe
from decoupled.scoring import figures_of
from decoupled.side_by_side import ExitSet, ExitTrainer, States
from decoupled.variants import EXITS, Variant

BATCH, TRUNK_BATCH = 16, 32  # rows
WARMUP = 20  # steps
REPORTED = 2000  # maximum validation rows
RATE = 1e-4


@dataclass(frozen=True)
class Setup:
    """Settings of a training of exits on a frozen trunk.

    Args:
        rows: maximum rows of traffic.
        epochs: passes over them.
        labelled: train on the labelled training rows instead.
        rate: multiple of 1e-4.
        temperature: temperature of the distillation.
    """

    rows: int
    epochs: int
    labelled: bool = False
    rate: float = 3.0
    temperature: float = 1.0

    @property
    def name(self) -> str:
        """Key of its results."""
        learned = "labels" if self.labelled else "no labels"
        softened = "" if self.temperature == 1.0 else f", temperature {self.temperature:g}"
        return f"{self.rows} rows, {self.epochs} epochs, {learned}, {self.rate * RATE:g}{softened}"


SETUPS = (Setup(500, 8), Setup(2000, 4), Setup(6000, 2), Setup(6000, 2, temperature=2.0), Setup(6000, 2, labelled=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=plan.SEEDS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    for seed in options.seeds:
        for task in options.tasks:
            name = f"{task}-{seed}-frozen"
            plain = options.folder / f"{task}-{seed}" / "plain"
            if name not in store.read(store.DECOUPLED) and plain.is_dir():
                store.add(name, one(task, seed, plain), store.DECOUPLED)


def one(task: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and scores every setup on one plain model."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH)
    (trained, labels), pool = training_rows(task, TRAINED)
    traffic, unseen = traffic_of(task, trained)
    start = time.perf_counter()
    outputs = {False: run_trunk(model, tokenizer, traffic)}
    trunk_seconds = time.perf_counter() - start
    outputs[True] = run_trunk(model, tokenizer, trained) if unseen else outputs[False]
    sets, seconds = [], {}
    for setup in SETUPS:
        start = time.perf_counter()
        exits = ExitSet(model, Variant(setup.name, "", "", rate=setup.rate, temperature=setup.temperature), seed)
        train(exits, outputs[setup.labelled], setup, labels if setup.labelled else None, seed)
        seconds[setup.name] = round(time.perf_counter() - start, 1)
        sets.append(exits)
    del outputs
    splits = {"pool": pool, "validation": read_task(task, "validation", REPORTED)}
    logits = {split: observe(model, sets, tokenizer, *each) for split, each in splits.items()}
    result = {
        **provenance(),
        "run": f"{task}-{seed}",
        "settings": {"batch_size": BATCH, "learning_rate": RATE, "traffic": len(traffic), "unseen": unseen},
        **figures_of(logits, task, {setup.name: EXITS for setup in SETUPS}),
        "seconds": {"asking the trunk": round(trunk_seconds, 1), "training": seconds},
    }
    print(f"{task}-{seed}: {result['seconds']}", flush=True)
    for name, figures in result["variants"].items():
        shown = figures["pool"]
        print(f"  {name:38}", *(f"{100 * score:.1f}" for score in (*shown["score"], *shown["agreement"])), flush=True)
    return result


def traffic_of(task: str, trained: list) -> tuple[list, bool]:
    """Returns unlabelled texts, and `True` if the model was not trained on them."""
    try:
        texts, _ = read_task(task, "train_20k", TRAINED + POOL + TRAINED)
    except SystemExit:
        return trained, False
    unseen = texts[TRAINED + POOL :]
    return (unseen, True) if len(unseen) > POOL / 2 else (trained, False)


@dataclass(frozen=True)
class TrunkOutputs:
    """The hidden states and logits of the trunk.

    Args:
        states: per row, exit → (tokens, hidden) in bfloat16.
        logits: (rows, labels).
    """

    states: list[dict[int, torch.Tensor]]
    logits: torch.Tensor

    def batch(self, rows: list[int]) -> tuple[dict[int, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Returns states (rows, tokens, hidden) per exit, mask (rows, tokens) and logits (rows, labels)."""
        of_rows = [self.states[row] for row in rows]
        padded = {
            exit_: torch.nn.utils.rnn.pad_sequence([each[exit_] for each in of_rows], batch_first=True).float()
            for exit_ in of_rows[0]
        }
        lengths = torch.tensor([len(next(iter(each.values()))) for each in of_rows])
        mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        return padded, mask, self.logits[rows]


@torch.inference_mode()
def run_trunk(model: torch.nn.Module, tokenizer: Any, texts: list) -> TrunkOutputs:
    """Computes the hidden states before every exit, and the logits, in batches of rows of similar length."""
    captured = States(model)
    encoded = tokenizer(*columns_of(texts), truncation=True)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    order = np.argsort(lengths, kind="stable")
    states: list[Any] = [None] * len(texts)
    logits: list[Any] = [None] * len(texts)
    for start in range(0, len(order), TRUNK_BATCH):
        rows = order[start : start + TRUNK_BATCH].tolist()
        model(
            **tokenizer.pad(
                {name: [values[row] for row in rows] for name, values in encoded.items()}, return_tensors="pt"
            )
        )
        for place, row in enumerate(rows):
            states[row] = {exit_: captured.before[exit_][place, : lengths[row]].bfloat16().clone() for exit_ in EXITS}
            logits[row] = captured.logits[place].clone()
    return TrunkOutputs(states, torch.stack(logits))


def train(exits: ExitSet, outputs: TrunkOutputs, setup: Setup, labels: list[int] | None, seed: int) -> None:
    """Trains exits on the outputs of the trunk."""
    count = min(setup.rows, len(outputs.states))
    trainer = ExitTrainer([exits])
    batches = list(batches_of(outputs, count, setup.epochs, seed))
    clock = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = get_linear_schedule_with_warmup(clock, WARMUP, len(batches))
    for rows in batches:
        states, mask, logits = outputs.batch(rows)
        of_rows = None if labels is None else torch.tensor([labels[row] for row in rows])
        trainer.step(states, mask, of_rows, logits, schedule.get_last_lr()[0], RATE)
        clock.step()
        schedule.step()


def batches_of(outputs: TrunkOutputs, count: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Yields batches of rows of similar length in random order."""
    random = np.random.default_rng(seed)
    lengths = np.array([len(next(iter(states.values()))) for states in outputs.states[:count]])
    for _ in range(epochs):
        order = random.permutation(count)
        near = [
            part[np.argsort(lengths[part], kind="stable")] for part in np.array_split(order, -(-count // (50 * BATCH)))
        ]
        batches = [part[start : start + BATCH].tolist() for part in near for start in range(0, len(part), BATCH)]
        yield from (batches[place] for place in random.permutation(len(batches)))


if __name__ == "__main__":
    main()
