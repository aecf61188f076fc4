"""Rows that train the scores of tokens, choose policies, and are reported."""

from __future__ import annotations

import random
from typing import Any

from paper.run import TRAINED, training_rows
from record import read_task

SENTENCES = 20  # of a long text

Rows = tuple[list[Any], list[int]]


def rows_of(task: str, counts: dict[str, int]) -> dict[str, Rows]:
    """Returns rows that train the scores, choose policies, and are reported."""
    training, (texts, labels) = training_rows(task, TRAINED)
    return {
        "scored": (training[0][: counts["scored"]], training[1][: counts["scored"]]),
        "pool": (texts[: counts["pool"]], labels[: counts["pool"]]),
        "validation": read_task(task, "validation", counts["validation"]),
    }


def long_texts(counts: dict[str, int]) -> dict[str, Rows]:
    """Returns texts of 20 sentences that the model of SST-2 was not trained on, labelled with the sentiment of two
    thirds or more of them.
    """
    texts, labels = read_task("sst2", "train_20k")
    held_out = list(zip(texts, labels, strict=True))[TRAINED:]
    of_label = {label: [text for text, each in held_out if each == label] for label in (0, 1)}
    rng, found = random.Random(0), {}
    for name, count in counts.items():
        rows = []
        for place in range(count):
            mostly = rng.randint(SENTENCES * 2 // 3, SENTENCES)
            sentences = rng.sample(of_label[place % 2], mostly) + rng.sample(
                of_label[1 - place % 2], SENTENCES - mostly
            )
            rng.shuffle(sentences)
            rows.append((" . ".join(sentences), place % 2))
        found[name] = tuple(map(list, zip(*rows, strict=True)))
    return found
