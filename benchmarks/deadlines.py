"""Deadlines: share of answers that come in time, for deadlines between two exits.

    python benchmarks/deadlines.py --shape BERT-base

Uses random weights of a shape in INT8, and sentences of SST-2 validation. The thresholds let no row exit early, so that
only deadlines do. For each deadline, halfway between the median times of two exits, every text (or batch of 32) is
answered once. An answer is in time if it takes no longer than the deadline plus one segment of the same text or batch,
measured as a median of runs without a deadline.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
from record import check_idle_machine, pretrained, provenance, read_task, write_result
from shapes import SHAPES, random_artifact
from transformers import AutoTokenizer

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.ragged import TokenBatch

FAR_DEADLINE = 3600.0  # seconds; segments run as with a deadline, and none is late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="BERT-base", choices=SHAPES, help="shape of the random weights")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=5, help="runs to measure segment times")
    options = parser.parse_args()
    check_idle_machine()
    model = SweetModelForSequenceClassification.from_pretrained(random_artifact(options.shape).directory)
    rows = sentences(model, options.rows)
    settings = {name: getattr(options, name) for name in ("shape", "rows", "repeats")}
    result: dict[str, Any] = {**provenance(), "settings": settings, "backend": model.backend.name}
    for size in (1, 32):
        parts = [rows.select(np.arange(start, min(start + size, len(rows)))) for start in range(0, len(rows), size)]
        result[f"batch {size}"] = of_parts(model, parts, options.repeats)
        for each in result[f"batch {size}"]:
            print(f"batch {size}", each, flush=True)
    print(write_result("deadlines", result))


def sentences(model: SweetModelForSequenceClassification, count: int) -> TokenBatch:
    """Reads sentences of SST-2 validation with the tokenizer of the pretrained weights."""
    model.tokenizer = AutoTokenizer.from_pretrained(pretrained(), model_max_length=128)
    return model.read(read_task("sst2", "validation", count)[0], 128)


def of_parts(model: SweetModelForSequenceClassification, parts: list[TokenBatch], repeats: int) -> list[dict[str, Any]]:
    """Measures one entry per deadline."""
    exits = model.artifact.exits
    never = Policy((1.0,) * (len(exits) - 1), (1.0,) * len(exits))

    def seconds(part: TokenBatch, policy: Policy, deadline: float) -> tuple[float, Any]:
        start = time.perf_counter()
        answers = model.executor.run(part, policy, len(part), start + deadline)
        return time.perf_counter() - start, answers

    to_exit = np.empty((len(parts), len(exits), repeats + 1))
    for repeat in range(repeats + 1):
        for number, part in enumerate(parts):
            for place in range(len(exits)):
                policy = dataclasses.replace(never, max_exit_index=place)
                to_exit[number, place, repeat] = seconds(part, policy, FAR_DEADLINE)[0]
    exit_times = np.median(to_exit[..., 1:], axis=2)
    segments = np.diff(exit_times, axis=1)
    entries = []
    for place in range(len(exits) - 1):
        deadline = float(exit_times[:, place : place + 2].mean())
        seconds_taken, exits_taken, late = [], [], []
        for part in parts:
            elapsed, answers = seconds(part, never, deadline)
            seconds_taken.append(elapsed)
            exits_taken += [exits[exit_index] for exit_index in answers.exit_index]
            late.append(bool(answers.out_of_time.all()))
            assert answers.out_of_time.all() or (answers.exit_index == len(exits) - 1).all()
        over = np.array(seconds_taken) - deadline
        # The segment that runs at the deadline may be the longest of this text.
        in_time = over <= segments.max(axis=1)
        entries.append(
            {
                "deadline_ms": round(1000 * deadline, 4),
                "between_exits": [exits[place], exits[place + 1]],
                "in_time": round(float(in_time.mean()), 4),
                "answers": len(in_time),
                "over_ms": {f"p{q}": round(1000 * float(np.percentile(over, q)), 4) for q in (50, 95, 99)},
                "longest_segment_ms": round(1000 * float(np.median(segments.max(axis=1))), 4),
                "stopped_by_deadline": round(float(np.mean(late)), 4),
                "answered_at": {str(exit_): exits_taken.count(exit_) for exit_ in exits},
            }
        )
    return entries


if __name__ == "__main__":
    main()
