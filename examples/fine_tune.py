"""Fine-tunes a classifier with exits: an unmodified model, an unmodified Trainer, and SweetCallback.

python examples/fine_tune.py --model bert-base-uncased --output my-classifier
"""

import argparse

from datasets import ClassLabel, Dataset, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from itrex_sweet import SweetCallback, save_artifact
from itrex_sweet.demo.corpus import LABELS, make_corpus


def main(argv: list[str] | None = None) -> None:
    """Trains, prints the accuracy of every exit, and writes the artifact."""
    args = parse(argv)
    rows = read_rows(args.data, args.rows)
    names = rows.features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: id_ for id_, name in enumerate(names)},
    )
    rows = rows.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True, remove_columns="text"
    )
    split = rows.train_test_split(0.1, seed=0)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            "checkpoints",
            num_train_epochs=args.epochs,
            learning_rate=args.learning_rate,
            per_device_train_batch_size=16,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        ),
        train_dataset=split["train"],
        eval_dataset=split["test"],
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        callbacks=[SweetCallback()],  # exits after a sixth, a third, two thirds and all of the layers
    )
    trainer.train()
    for name, value in trainer.evaluate().items():
        if name.endswith("_accuracy"):
            print(f"{name.removeprefix('eval_').removesuffix('_accuracy').replace('_', ' ')}: {100 * value:.1f} %")
    save_artifact(trainer.model, args.output, tokenizer)
    print(f"{args.output} holds the model and its exits.")


def read_rows(path: str | None, count: int) -> Dataset:
    """Returns rows with the columns text and label, from a file or generated."""
    if path is None:
        reviews = make_corpus(train=count, calibration=0, test=0)["train"]
        rows = Dataset.from_list([{"text": review.text, "label": review.label} for review in reviews])
        return rows.cast_column("label", ClassLabel(names=list(LABELS)))
    kind = "csv" if path.endswith(".csv") else "json"
    rows = load_dataset(kind, data_files=path, split="train").select_columns(["text", "label"])
    rows = rows.shuffle(seed=0).select(range(min(count, len(rows))))
    return rows.class_encode_column("label")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="bert-base-uncased", help="folder or hub name (default: bert-base-uncased)")
    parser.add_argument("--data", help="CSV or JSON lines with the columns text and label (default: generated reviews)")
    parser.add_argument("--rows", type=int, default=4000, help="(default: 4000)")
    parser.add_argument("--epochs", type=float, default=2, help="(default: 2)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="(default: 5e-5)")
    parser.add_argument("--output", default="my-classifier", help="(default: my-classifier)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
