"""Quantizes a model with exits to INT8, chooses thresholds with a guarantee, and measures accuracy and speed.

    python examples/quantize_and_calibrate.py my-classifier --data labelled.csv --output my-classifier-int8

Quantization, calibration and the final measurement use disjoint rows.
"""

import argparse
import time

from datasets import Dataset, load_dataset

from itrex_sweet import Budget, SweetModelForSequenceClassification, SweetQuantizer, calibrate
from itrex_sweet.demo.corpus import make_corpus
from itrex_sweet.errors import CalibrationError


def main(argv: list[str] | None = None) -> None:
    """Prints accuracy and texts per second at full depth and with early exit."""
    args = parse(argv)
    rows = read(args.data, args.rows)
    ends = [round(share * len(rows)) for share in (0.2, 0.8, 1.0)]
    for_ranges, for_thresholds, for_report = (
        rows.select(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)
    )

    quantizer = SweetQuantizer.from_pretrained(args.model)
    quantizer.quantize(for_ranges, save_directory=args.output, recipe=args.recipe)

    model = SweetModelForSequenceClassification.from_pretrained(args.output)
    try:
        calibration = calibrate(model, for_thresholds, Budget(max_accuracy_drop=args.max_accuracy_drop))
        calibration.write(model.artifact)
        model = SweetModelForSequenceClassification.from_pretrained(args.output)
        print(f"thresholds {calibration.policy.thresholds}, certified: {calibration.certified is not None}")
    except CalibrationError as error:
        print(f"not calibrated: {error}")

    measure(model, "full depth", for_report, threshold=1.0)
    measure(model, "early exit", for_report)


def measure(model, name: str, rows: Dataset, **options) -> None:
    """Prints accuracy, mean layers and texts per second, tokenization included."""
    texts = list(rows["text"])
    labels = [label if isinstance(label, str) else model.config.id2label[label] for label in rows["label"]]
    model.predict(texts[:64], **options)  # warm-up
    start = time.perf_counter()
    answers = model.predict(texts, **options)
    seconds = time.perf_counter() - start
    right = sum(answer["label"] == label for answer, label in zip(answers, labels, strict=True))
    layers = sum(answer["exit_layer"] for answer in answers) / len(answers)
    print(f"{name}: accuracy {100 * right / len(texts):.1f} %, {layers:.2f} layers, {len(texts) / seconds:.0f} texts/s")


def read(path: str | None, count: int) -> Dataset:
    """Returns rows with the columns text and label, shuffled, from a file or generated."""
    if path is None:
        reviews = make_corpus(train=0, calibration=count, test=0)["calibration"]
        return Dataset.from_list([{"text": review.text, "label": review.label} for review in reviews])
    kind = "csv" if path.endswith(".csv") else "json"
    rows = load_dataset(kind, data_files=path, split="train").shuffle(seed=0)
    return rows.select(range(min(count, len(rows))))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="artifact of a model with exits, such as fine_tune.py writes")
    parser.add_argument("--data", help="labelled texts (default: generated reviews)")
    parser.add_argument("--rows", type=int, default=4000, help="(default: 4000)")
    parser.add_argument("--recipe", default="auto", choices=("auto", "static", "smooth", "dynamic"))
    parser.add_argument("--max-accuracy-drop", type=float, default=0.01, help="(default: 0.01)")
    parser.add_argument("--output", default="my-classifier-int8", help="(default: my-classifier-int8)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
