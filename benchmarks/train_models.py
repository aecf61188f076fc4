"""Trains the SWEET models that the other benchmarks quantize and time, and prints the accuracy of every exit.

    python benchmarks/train_models.py --tasks sst2 qnli ag_news

Saves the artifacts as `benchmarks/runs/TASK/sweet-0`; existing ones are not trained again. Accuracies of SWEET and its
baselines over several seeds come from `paper/run.py`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from fine_tuning import Settings, fine_tune
from record import RUNS, read_task

from itrex_sweet import SweetModelForSequenceClassification


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=6000, help="training rows")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for task in options.tasks:
        folder = RUNS / task / f"sweet-{options.seed}"
        if not (folder / "sweet_config.json").is_file():
            texts, labels = read_task(task, "train", options.rows)
            fine_tune("sweet", texts, labels, options.seed, Settings(bf16=options.bf16), folder)
        model = SweetModelForSequenceClassification.from_pretrained(folder)
        texts, labels = read_task(task, "validation")
        logits = model.executor.logits_at_every_exit(model.read(texts))
        accuracy = (logits.argmax(-1) == np.asarray(labels)[:, None]).mean(0)
        print(task, dict(zip(model.artifact.exits, np.round(100 * accuracy, 2).tolist(), strict=True)), flush=True)


if __name__ == "__main__":
    main()
