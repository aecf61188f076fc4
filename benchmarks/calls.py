"""Microseconds per text of `predict`, split into the engine's call, the reading of texts, and other Python.

    python benchmarks/calls.py ARTIFACT

ARTIFACT is an INT8 artifact with its tokenizer. Short sentences of SST-2 are classified one at a time and in batches of
32: with the stored policy, all at the first exit, and at full depth; as dictionaries and as arrays. The parts are timed
inside the same calls: `engine` is the C function, `reading` the reader of texts, and `other` the rest of `predict`. The
result is written to `benchmarks/results/calls.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import check_idle_machine, provenance, read_task, write_result

import itrex_sweet
from itrex_sweet.classifier import Classifier

POLICIES: dict[str, dict[str, Any]] = {
    "stored policy": {},
    "all at the first exit": {"threshold": 0.0},
    "full depth": {"threshold": 1.0},
}
LONGEST = 60  # characters
BATCH = 32


class Stopwatch:
    """Replaces a method of an object by one that adds up its time."""

    def __init__(self, owner: Any, name: str):
        self.seconds = 0.0
        function = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **named)
            self.seconds += time.perf_counter() - start
            return result

        setattr(owner, name, timed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    texts = [text for text in read_task("sst2", "validation")[0] if len(text) <= LONGEST][: args.rows]
    check_idle_machine()
    classifier = itrex_sweet.load(args.artifact, threads=args.threads)
    measured: dict[str, Any] = {}
    runs = {
        f"{size} {'text' if size == 1 else 'texts'}, {name}{', as arrays' if form else ''}": (size, {**options, **form})
        for size in (1, BATCH)
        for name, options in POLICIES.items()
        for form in ({}, {"as_arrays": True})
    }
    timed = Parts(classifier)
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(args.repeats + 1):
        for name, (size, options) in runs.items():
            rows[name].append(timed.microseconds(texts, size, options))
    for name in runs:
        parts = rows[name][1:]  # the first run warms up
        measured[name] = {part: round(float(np.median([each[part] for each in parts])), 1) for part in parts[0]}
        print(f"{name:45}", json.dumps(measured[name]), flush=True)
    settings = {name: getattr(args, name) for name in ("repeats", "threads")}
    tokens = classifier.read(texts).lengths.mean()
    settings |= {"rows": len(texts), "tokens_per_text": round(float(tokens), 1)}
    write_result("calls", {**provenance(), "settings": settings, "microseconds_per_text": measured})


class Parts:
    """Times the parts of `predict` of a classifier on the native engine."""

    def __init__(self, classifier: Classifier):
        self._predict: Callable[..., Any] = classifier.predict
        self._engine = Stopwatch(classifier.backend._library, "sweet_answer")
        reader = classifier.reader_of(classifier.tokenizer)
        self._reading = Stopwatch(reader, "pack"), Stopwatch(reader, "read")  # `read` if `pack` returns nothing

    def microseconds(self, texts: list[str], size: int, options: dict[str, Any]) -> dict[str, float]:
        """Returns the microseconds per text of calls of `size` texts: in all, and by part."""
        watches = (self._engine, *self._reading)
        for watch in watches:
            watch.seconds = 0.0
        calls = [texts[start : start + size] for start in range(0, len(texts), size)]
        start = time.perf_counter()
        for call in calls:
            self._predict(call, **options)
        total = time.perf_counter() - start
        reading = sum(watch.seconds for watch in self._reading)
        parts = {"predict": total, "engine": self._engine.seconds, "reading": reading}
        parts["other"] = total - self._engine.seconds - reading
        return {name: seconds / len(texts) * 1e6 for name, seconds in parts.items()}


if __name__ == "__main__":
    main()
