"""Time per text of zero-shot classification with ten hypotheses, with early exits and in full.

    python benchmarks/zero_shot.py prepare NLI_MODEL DIR     exits trained on unlabelled pairs of text and hypothesis
    python benchmarks/zero_shot.py measure DIR               writes results/zero_shot.json

`prepare` takes a fine-tuned NLI classifier (labels entailment, neutral, contradiction in this order), adds exits to it
by `add_exits` on news headlines with the hypotheses of `LABELS`, unlabelled, and quantizes it. `measure` chooses the
threshold on other headlines of the same split, so that the label of a text agrees with that of full depth for
`CHOSEN_AGREEMENT` of them, and reports agreement and time on the validation split. Both runs are of the same INT8 model
on the same engine, interleaved.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import check_idle_machine, provenance, read_task, write_result

import itrex_sweet

LABELS = (
    *("world politics", "sports", "business", "technology", "science"),
    *("entertainment", "health", "travel", "education", "crime"),
)
TEMPLATE = "This example is {}."
NLI_LABELS = ("entailment", "neutral", "contradiction")
EXITS = (2, 3, 4, 5)
TRAINING, CHOOSING, TESTING = 500, 300, 300  # texts
CHOSEN_AGREEMENT, BATCH, MAX_LENGTH = 0.995, 64, 128
THRESHOLDS = (*np.linspace(0.5, 0.99, 50).round(3).tolist(), 0.995, 0.998, 0.999, 0.9995, 1.0)


def headlines(split: str, count: int) -> list[str]:
    """Reads the first texts of a split."""
    return read_task("ag_news", split, count)[0]


def prepare(source: Path, folder: Path) -> None:
    """Adds exits to an NLI model, and writes the float32 and the INT8 artifact."""
    from itrex_sweet.acceleration import add_exits
    from itrex_sweet.data import Rows
    from itrex_sweet.quantization import SweetQuantizer

    plain = folder / "plain"
    shutil.copytree(source, plain, dirs_exist_ok=True)
    config = json.loads((plain / "config.json").read_text())
    config["id2label"] = {str(place): name for place, name in enumerate(NLI_LABELS)}
    config["label2id"] = {name: place for place, name in enumerate(NLI_LABELS)}
    (plain / "config.json").write_text(json.dumps(config))
    texts = headlines("train", TRAINING)
    pairs = [(text, TEMPLATE.format(label)) for text in texts for label in LABELS]
    depth = config["num_hidden_layers"]
    added = add_exits(
        plain,
        pairs,
        folder / "float32",
        exits=(*EXITS, depth),
        epochs=3,
        learning_rate=2e-4,
        batch_size=32,
        max_length=MAX_LENGTH,
    )
    print(added.agreements)
    model = itrex_sweet.load(folder / "float32")
    observed = pairs[:: len(pairs) // 500]
    labels = [NLI_LABELS.index(answer["label"]) for answer in model.predict(observed, threshold=1.0)]
    SweetQuantizer.from_pretrained(folder / "float32").quantize(
        Rows(observed, labels, source="headlines with hypotheses"), folder / "int8"
    )


def agreement(answers: list[dict[str, Any]], full: list[dict[str, Any]]) -> float:
    """Returns the share of texts with the same first label."""
    return float(np.mean([one["labels"][0] == other["labels"][0] for one, other in zip(answers, full, strict=True)]))


def measure(folder: Path, repeats: int) -> None:
    """Chooses the threshold, and times both runs in turns."""
    model = itrex_sweet.load(folder / "int8", backend="native", batch_size=BATCH)
    settings = dict(candidate_labels=LABELS, hypothesis_template=TEMPLATE, max_length=MAX_LENGTH)
    choosing = headlines("train", TRAINING + CHOOSING)[TRAINING:]
    full = model.zero_shot(choosing, threshold=1.0, **settings)
    for threshold in THRESHOLDS:
        share = agreement(model.zero_shot(choosing, threshold=threshold, **settings), full)
        if share >= CHOSEN_AGREEMENT:
            break
    print(f"threshold {threshold}: {share:.4f} agree")
    check_idle_machine()
    testing = headlines("validation", TESTING)
    times: dict[float, list[float]] = {threshold: [], 1.0: []}
    answers = {}
    for _ in range(repeats + 1):
        for each in times:
            start = time.perf_counter()
            answers[each] = model.zero_shot(testing, threshold=each, **settings)
            times[each].append(1000 * (time.perf_counter() - start) / len(testing))
    medians = {each: statistics.median(values[1:]) for each, values in times.items()}
    layers = np.concatenate([answer["exit_layers"] for answer in answers[threshold]])
    result = {
        "texts": len(testing),
        "hypotheses": len(LABELS),
        "threshold": threshold,
        "agreement_when_chosen": share,
        "agreement": agreement(answers[threshold], answers[1.0]),
        "share_of_layers": float(layers.mean() / model.exits[-1]),
        "exits": {str(exit_): float((layers == exit_).mean()) for exit_ in model.exits},
        "milliseconds_per_text": {"early_exits": medians[threshold], "full": medians[1.0]},
        "speed_up": medians[1.0] / medians[threshold],
    }
    print(json.dumps(result, indent=2))
    write_result("zero_shot", {**provenance(), **result})


def main() -> None:
    """Runs one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare")
    preparing.add_argument("model", type=Path)
    preparing.add_argument("folder", type=Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.model, args.folder)
    else:
        measure(args.folder, args.repeats)


if __name__ == "__main__":
    main()
