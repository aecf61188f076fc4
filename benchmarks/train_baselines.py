"""Accuracy per exit of SWEET and of the paper's two baselines, on one task, from the same pretrained weights.

    python benchmarks/train_baselines.py --task sst2 --seeds 0 1 2

Trains with the same rows and arguments: `sweet` (gradients cut), `joint` (Early-Exit: not cut) and `multi-model`
(independent truncated models). Validation rows are only reported on. Models go to `benchmarks/runs`, figures to
`benchmarks/results/TASK_training.json`; finished runs are not trained again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from fine_tuning import METHODS, Settings, fine_tune
from record import RUNS, provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification

TRAINED_ALONE = [name for name, how in METHODS.items() if how is None or not how.needs_plain]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=TRAINED_ALONE, default=["sweet", "joint", "multi-model"])
    parser.add_argument("--exits", type=int, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--rows", type=int, default=6000, help="training rows")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast, for all methods alike")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        for method in options.methods:
            folder = RUNS / options.task / f"{method}-{seed}"
            if not (folder / "figures.json").is_file():
                train(options, method, seed, folder)
            print(method, seed, (folder / "figures.json").read_text(), flush=True)
    report(options)


def train(options: argparse.Namespace, method: str, seed: int, folder: Path) -> None:
    """Trains one method with one seed; leaves the artifact and its figures in `folder`."""
    texts, labels = read_task(options.task, "train", options.rows)
    names = ("epochs", "learning_rate", "batch_size", "bf16")
    settings = Settings(tuple(options.exits), **{name: getattr(options, name) for name in names})
    tuned = fine_tune(method, texts, labels, seed, settings, folder)
    figures = {
        "accuracy": accuracy_per_exit(tuned.artifact.directory, options.task),
        "seconds": round(tuned.seconds),
        "commit": provenance()["commit"],
    }
    (folder / "figures.json").write_text(json.dumps(figures))


def accuracy_per_exit(directory: Path, task: str) -> list[float]:
    """Validation accuracy if every row answered at each exit, in percent."""
    model = SweetModelForSequenceClassification.from_pretrained(directory)
    texts, labels = read_task(task, "validation")
    logits = model.executor.logits_at_every_exit(model.read(texts))
    correct = logits.argmax(-1) == np.asarray(labels)[:, None]
    return [round(100 * value, 2) for value in correct.mean(0).tolist()]


def report(options: argparse.Namespace) -> None:
    """Writes means and standard deviations over all seeds that are there, and prints them as a table."""
    settings = {
        name: getattr(options, name)
        for name in ("task", "exits", "rows", "epochs", "learning_rate", "batch_size", "bf16")
    }
    methods = {}
    for method in METHODS:
        paths = sorted((RUNS / options.task).glob(f"{method}-[0-9]*/figures.json"))
        if paths:
            runs = {path.parent.name.rsplit("-", 1)[1]: json.loads(path.read_text()) for path in paths}
            table = np.array([run["accuracy"] for run in runs.values()])
            methods[method] = {
                "runs": runs,
                "mean": table.mean(0).round(2).tolist(),
                "deviation": table.std(0, ddof=1).round(2).tolist() if len(table) > 1 else None,
            }
    validation = len(read_task(options.task, "validation")[1])
    path = write_result(
        f"{options.task}_training",
        {**provenance(), "settings": {**settings, "validation_rows": validation}, "methods": methods},
    )
    print(f"\n{'exit':>12}" + "".join(f"{exit_:>16}" for exit_ in options.exits))
    for method, figures in methods.items():
        spread = figures["deviation"] or [None] * len(options.exits)
        cells = [
            f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")
            for mean, sd in zip(figures["mean"], spread, strict=True)
        ]
        print(f"{method:>12}" + "".join(f"{cell:>16}" for cell in cells) + f"   {len(figures['runs'])} seeds")
    print(path)


if __name__ == "__main__":
    main()
