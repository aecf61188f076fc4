"""Fine-tunes the plain model of each task and seed, trains the exits of every variant beside it, and scores them.

    python benchmarks/decoupled/run.py --tasks rte cola --seeds 0

Rows, epochs, batches and the learning rate of the plain fine-tuning are those of `benchmarks/paper/run.py`, so that the
trunk equals the full-depth model of its Multi-Model. Existing results are not computed again. Models, exits and logits
are saved in `--folder`, results in `benchmarks/results/decoupled.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from datasets import Dataset
from fine_tuning import MAX_LENGTH, columns_of
from paper import plan, store
from paper.run import TRAINED, training_rows
from record import pretrained, provenance, read_task
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from decoupled.artifacts import FOLDER
from decoupled.scoring import AMONG, figures_of
from decoupled.side_by_side import ExitSet, SideBySide, States
from decoupled.variants import VARIANTS

BATCH = 16
EVALUATION_BATCH = 32  # rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=plan.SEEDS)
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument(
        "--kind", default="", help="appended to the names of the results, for a training beside those that exist"
    )
    parser.add_argument(
        "--float32",
        action="store_true",
        help="train in float32; processors without bfloat16 emulate it, 20 times slower",
    )
    parser.add_argument("--gpu", action="store_true", help="train on the GPU; scores are always computed on the CPU")
    options = parser.parse_args()
    for seed in options.seeds:
        for task in options.tasks:
            name = f"{task}-{seed}{options.kind}"
            there = store.read(store.DECOUPLED).get(name)
            missing = [each for each in options.variants if there is None or each not in there["variants"]]
            if missing:
                result = one(task, seed, missing, options.folder, options.gpu, not options.float32)
                result = result if there is None else joined(there, result)
                store.add(name, result, store.DECOUPLED)


def joined(there: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Adds the variants of another run to a result.

    Raises:
        SystemExit: their trunks are not equal to the bit.
    """
    if there["trunk"] != more["trunk"]:
        raise SystemExit(
            f"{there['run']}: the trunk differs from the one trained beside {', '.join(there['variants'])}."
        )
    return {**there, **{name: {**there[name], **more[name]} for name in ("variants", AMONG)}}


def one(task: str, seed: int, variants: list[str], folder: Path, gpu: bool, bf16: bool = True) -> dict[str, Any]:
    """Trains and scores one run.

    Args:
        folder: parent of the run's own folder, which is created.
        gpu: trains on the GPU.
        bf16: trains with automatic mixed precision in bfloat16.
    """
    start = time.perf_counter()
    plain = plan.reported(task, plan.MULTI_MODEL, seed)
    rows, pool = training_rows(task, TRAINED)
    folder /= f"{task}-{seed}"
    beside = SideBySide([VARIANTS[name] for name in variants], seed)
    model, seconds = fine_tune(*rows, seed, plain.learning_rate, folder, beside, gpu, bf16)
    model.cpu()
    for each in beside.trained:
        each.cpu()
    trained = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=MAX_LENGTH)
    splits = {"pool": pool, "validation": read_task(task, "validation")}
    logits = {split: observe(model, beside.trained, tokenizer, *each) for split, each in splits.items()}
    model.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    for each in beside.trained:
        torch.save(each.state_dict(), folder / f"{each.variant.name}.pt")
        np.savez(folder / f"{each.variant.name}.npz", **{split: of[each.variant.name] for split, of in logits.items()})
    print(f"{task}-{seed}: trained {seconds:.0f} s", flush=True)
    stored = {split: plain.read()[split]["score"][-1] for split in splits}
    result = {
        **provenance(),
        "run": f"{task}-{seed}",
        "settings": {
            "epochs": plan.EPOCHS,
            "learning_rate": plain.learning_rate,
            "batch_size": BATCH,
            "bf16": bf16,
            "rows": len(rows[0]),
            "plain": plain.name,
            "device": torch.cuda.get_device_name() if gpu else "cpu",
        },
        "plain": stored,
        "trunk": fingerprint(model),
        **figures_of(logits, task, {each.variant.name: each.variant.exits for each in beside.trained}),
        "seconds": {
            "training": round(seconds, 1),
            "of it exits": round(beside.seconds, 1),
            "scoring": round(time.perf_counter() - trained, 1),
            "all": round(time.perf_counter() - start, 1),
        },
    }
    print(f"{task}-{seed}: {result['seconds']}, plain stored {stored}", flush=True)
    for name, figures in result["variants"].items():
        print(
            f"  {name:9}",
            *(f"{100 * score:.1f}" for score in figures["pool"]["score"]),
            f"area {100 * figures['pool']['area']:.2f}",
            flush=True,
        )
    return result


def fine_tune(
    texts: list,
    labels: list[int],
    seed: int,
    rate: float,
    folder: Path,
    beside: SideBySide | None,
    gpu: bool = False,
    bf16: bool = True,
) -> tuple[torch.nn.Module, float]:
    """Returns the plain model, as `fine_tuning.py` trains Multi-Model's deepest, and the seconds that it took."""
    weights = pretrained()
    tokenizer = AutoTokenizer.from_pretrained(weights, model_max_length=MAX_LENGTH)
    dataset = Dataset.from_dict({**tokenizer(*columns_of(texts), truncation=True), "labels": list(labels)})
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=len(set(labels)))
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=plan.EPOCHS,
        learning_rate=rate,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="group_by_length",
        warmup_steps=20,
        seed=seed,
        save_strategy="no",
        report_to="none",
        use_cpu=not gpu,
        bf16=bf16,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[] if beside is None else [beside],
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False), seconds


@torch.inference_mode()
def observe(
    model: torch.nn.Module, sets: list[ExitSet], tokenizer: Any, texts: list, labels: list[int]
) -> dict[str, np.ndarray]:
    """Returns the labels, and the logits (rows, exits, labels) of every variant, including the last exit."""
    model.eval()
    states = States(model)
    columns = columns_of(texts)
    order = np.argsort([sum(map(len, row)) for row in zip(*columns, strict=True)], kind="stable")
    outputs: dict[str, list] = {each.variant.name: [] for each in sets}
    for start in range(0, len(order), EVALUATION_BATCH):
        rows = order[start : start + EVALUATION_BATCH]
        batch = tokenizer(
            *([column[row] for row in rows] for column in columns), truncation=True, padding=True, return_tensors="pt"
        )
        model(**batch)
        for each in sets:
            logits = each.eval()(states.before, states.mask)
            outputs[each.variant.name].append(torch.cat([logits, states.logits[:, None]], dim=1))
    back = np.argsort(order)
    return {
        "labels": np.array(labels),
        **{name: torch.cat(logits).numpy()[back] for name, logits in outputs.items()},
    }


def fingerprint(model: torch.nn.Module) -> str:
    """Returns a hash of a model's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
