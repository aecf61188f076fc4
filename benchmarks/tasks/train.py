"""Trains two multi-label models and a regression model with decoupled exits on the data sets of `corpora`.

    python benchmarks/tasks/train.py --corpora news topics rating

Saves the artifacts as `benchmarks/runs/CORPUS/decoupled-0`; existing ones are not trained again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from datasets import Dataset
from record import RUNS, pretrained
from tasks.corpora import NEWS, RATING, TOPIC_LABELS, TOPICS, corpus
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from itrex_sweet import SweetCallback, save_artifact
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION

MAX_LENGTH = 96
EXITS = (1, 2, 4, 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", default=[NEWS, TOPICS, RATING], choices=[NEWS, TOPICS, RATING])
    parser.add_argument("--rows", type=int, default=4000, help="training rows")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    options = parser.parse_args()
    for name in options.corpora:
        folder = RUNS / name / f"decoupled-{options.seed}"
        if not (folder / "sweet_config.json").is_file():
            train(name, folder, options)


def train(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Fine-tunes MiniLM with exits and saves the artifact."""
    rows = corpus(name, options.rows, held_out=False)
    tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=MAX_LENGTH)
    dataset = Dataset.from_dict({**tokenizer(rows.texts, truncation=True), "labels": rows.labels.tolist()})
    set_seed(options.seed)
    model = AutoModelForSequenceClassification.from_pretrained(pretrained(), **head_of(name))
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=32,
        train_sampling_strategy="group_by_length",
        warmup_steps=20,
        seed=options.seed,
        save_strategy="no",
        logging_steps=25,
        report_to="none",
        use_cpu=True,
        bf16=options.bf16,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[SweetCallback(EXITS)],
    )
    trainer.train()
    save_artifact(model, folder, tokenizer, provenance={"data": name, "rows": options.rows, "epochs": options.epochs})


def head_of(name: str) -> dict[str, Any]:
    """Returns the arguments of `from_pretrained` for the head of a data set."""
    if name == RATING:
        return {"num_labels": 1, "problem_type": REGRESSION}
    labels = TOPIC_LABELS[:4] if name == NEWS else TOPIC_LABELS
    return {
        "num_labels": len(labels),
        "problem_type": MULTI_LABEL,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: place for place, label in enumerate(labels)},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
