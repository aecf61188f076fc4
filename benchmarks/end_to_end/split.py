"""Splits the time of a call from strings to labels into tokenizer, engine, and the rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import itrex_sweet
from end_to_end.contenders import Ours
from itrex_sweet.runtime.ragged import TokenBatch


def cost_split(contender: Ours, texts: list[Any], size: int, repeats: int) -> dict[str, float]:
    """Measures microseconds per text of the parts of a prediction, in calls of `size` texts.

    `tokenizer` is the reader alone, `engine` the call of the backend on rows that were read before, and `other` what
    the prediction takes beyond both, up to the list of labels.
    """
    classifier = contender.classifier
    calls = [texts[start : start + size] for start in range(0, len(texts), size)]
    batches = [classifier.read(call) for call in calls]
    policy = classifier.policy.for_task(classifier.artifact.task.name, len(classifier.labels))
    parts: dict[str, Callable[[int], Any]] = {
        "all": lambda place: contender.classify(calls[place]),
        "tokenizer": lambda place: _read(classifier, calls[place]),
        "engine": lambda place: classifier.backend.answer(batches[place], policy),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for repeat in range(repeats + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            for place in range(len(calls)):
                part(place)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    found = {name: 1e6 * float(np.median(values)) / len(texts) for name, values in seconds.items()}
    found["other"] = max(found["all"] - found["tokenizer"] - found["engine"], 0.0)
    return {name: round(value, 2) for name, value in found.items()}


def _read(classifier: itrex_sweet.Classifier, texts: list[Any]) -> TokenBatch:
    """Reads texts as `predict` does."""
    reader = classifier.reader_of(classifier.tokenizer)
    batch = reader.pack(texts) if hasattr(reader, "pack") else None
    return reader.read(texts, None, "truncate").batch if batch is None else batch
