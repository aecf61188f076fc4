"""Milliseconds per sentence against the threshold: do skipped layers show on the clock?

    python benchmarks/sst2_speed.py --model benchmarks/runs/sst2/sweet-0

Runs the SST-2 validation sentences in batches of 32 at several thresholds, and the same weights in full by
transformers, padded as a pipeline pads (in natural order, and sorted by length, its best case). All in one process
with equal threads, interleaved, warm; medians. Token ids are made beforehand for everyone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from record import check_idle_machine, measure, provenance, read_task, write_result
from transformers import AutoModelForSequenceClassification

from itrex_sweet import SweetModelForSequenceClassification

THRESHOLDS = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="artifact trained on SST-2")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--busy", action="store_true", help="time although the machine is busy; for trying out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.busy:
        check_idle_machine()

    texts, labels = read_task("sst2", "validation")
    model = SweetModelForSequenceClassification.from_pretrained(options.model)
    plain = AutoModelForSequenceClassification.from_pretrained(options.model).eval()
    rows = model.read(texts)
    places = [
        np.arange(start, min(start + options.batch_size, len(rows)))
        for start in range(0, len(rows), options.batch_size)
    ]
    batches = [rows.select(place) for place in places]
    policies = {threshold: model.policy.with_threshold(threshold) for threshold in THRESHOLDS}

    def each_batch_alone(threshold: float) -> Callable[[], None]:
        return lambda: [model.executor.run(batch, policies[threshold]) for batch in batches]

    def all_rows(threshold: float) -> Callable[[], None]:
        return lambda: model.executor.run(rows, policies[threshold], options.batch_size)

    def padded(order: np.ndarray) -> Callable[[], None]:
        encoded = [
            model.tokenizer([texts[row] for row in order[place]], padding=True, return_tensors="pt") for place in places
        ]

        @torch.inference_mode()
        def run() -> None:
            for batch in encoded:
                plain(**batch)

        return run

    contenders = {
        "transformers, padded": padded(np.arange(len(rows))),
        "transformers, padded, sorted by length": padded(np.argsort(rows.lengths, kind="stable")),
        **{f"batch by batch, threshold {threshold}": each_batch_alone(threshold) for threshold in THRESHOLDS},
        **{f"all rows, threshold {threshold}": all_rows(threshold) for threshold in THRESHOLDS},
    }
    milliseconds = measure(contenders, options.repeats, len(rows))
    outcomes = [outcome(model, rows, np.asarray(labels), threshold) for threshold in THRESHOLDS]
    full = milliseconds["all rows, threshold 1.0"]["median"]
    result = {
        **provenance(),
        "settings": {"threads": options.threads, "batch_size": options.batch_size, "repeats": options.repeats,
                     "sentences": len(rows), "mean_tokens": round(float(rows.lengths.mean()), 1)},
        "milliseconds_per_sentence": milliseconds,
        "thresholds": outcomes,
        "first_exit_share_of_full_depth": round(milliseconds["all rows, threshold 0.0"]["median"] / full, 4),
    }  # fmt: skip
    path = write_result("sst2_speed", result)
    show(result, outcomes)
    print(path)


def outcome(model: SweetModelForSequenceClassification, rows: object, labels: np.ndarray, threshold: float) -> dict:
    """Accuracy in percent, mean layers and rows per exit at a threshold."""
    answers = model.executor.run(rows, model.policy.with_threshold(threshold))
    exits = model.exit_layers(answers)
    return {
        "threshold": threshold,
        "accuracy": round(100 * float((answers.logits.argmax(-1) == labels).mean()), 2),
        "mean_layers": round(float(exits.mean()), 3),
        "share_per_exit": {str(exit_): round(float((exits == exit_).mean()), 3) for exit_ in model.artifact.exits},
    }


def show(result: dict, outcomes: list[dict]) -> None:
    """Prints the figures as a table, times relative to transformers' better case."""
    milliseconds = result["milliseconds_per_sentence"]
    best = milliseconds["transformers, padded, sorted by length"]["median"]
    for name in ("transformers, padded", "transformers, padded, sorted by length"):
        print(f"{name:<42}{milliseconds[name]['median']:8.3f} ms")
    print(
        f"{'threshold':>9}{'accuracy':>10}{'layers':>8}{'ms':>9}{'ms, batch by batch':>20}{'speed-up over sorted':>22}"
    )
    for row in outcomes:
        ours = milliseconds[f"all rows, threshold {row['threshold']}"]["median"]
        alone = milliseconds[f"batch by batch, threshold {row['threshold']}"]["median"]
        print(
            f"{row['threshold']:>9}{row['accuracy']:>10}{row['mean_layers']:>8}"
            f"{ours:>9.3f}{alone:>20.3f}{best / ours:>21.2f}×"
        )
    print(f"a row leaving at the first probe costs {result['first_exit_share_of_full_depth']:.1%} of full depth")


if __name__ == "__main__":
    main()
