"""Whether answers come in time: deadlines between two exits, and when the answers came.

    python benchmarks/deadlines.py --shape BERT-base   # BERT-base, random weights
    python benchmarks/deadlines.py --task sst2         # a model that `quantize_recipes.py` left in benchmarks/runs

Nothing is sure enough to leave early here, so that only time ends a row's way. For each deadline, halfway between the
typical times of two exits, every text (or batch of 32) is answered once; an answer is in time if it comes within the
deadline and the time of one segment of that very text or batch, itself a median of runs without a deadline.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
from record import RUNS, pretrained, provenance, read_task, refuse_busy_machine, write_result
from shapes import SHAPES, random_artifact
from transformers import AutoTokenizer

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.config import Policy
from itrex_sweet.runtime.ragged import TokenBatch

NO_DEADLINE = float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="BERT-base", choices=SHAPES, help="of random weights")
    parser.add_argument("--task", help="a trained model instead")
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=5, help="runs that make a row's own segment times")
    options = parser.parse_args()
    refuse_busy_machine()
    task = RUNS / str(options.task) / "int8-static-default"
    folder = task if options.task else random_artifact(options.shape).directory
    model = SweetModelForSequenceClassification.from_pretrained(folder)
    rows = texts_for(model, options.task or "sst2", options.rows)
    settings = {name: getattr(options, name) for name in ("shape", "task", "rows", "repeats")}
    result: dict[str, Any] = {**provenance(), "settings": settings, "backend": model.backend.name}
    for size in (1, 32):
        parts = [rows.select(np.arange(start, min(start + size, len(rows)))) for start in range(0, len(rows), size)]
        result[f"batch {size}"] = of_parts(model, parts, options.repeats)
        for each in result[f"batch {size}"]:
            print(f"batch {size}", each, flush=True)
    print(write_result("deadlines", result))


def texts_for(model: SweetModelForSequenceClassification, task: str, count: int) -> TokenBatch:
    """Validation texts, read with the model's tokenizer or with that of the pretrained weights."""
    model.tokenizer = model.tokenizer or AutoTokenizer.from_pretrained(pretrained(), model_max_length=128)
    return model.read(read_task(task, "validation", count)[0], 128)


def of_parts(model: SweetModelForSequenceClassification, parts: list[TokenBatch], repeats: int) -> list[dict[str, Any]]:
    """One entry per deadline."""
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
                policy = dataclasses.replace(never, deepest=place)
                to_exit[number, place, repeat] = seconds(part, policy, NO_DEADLINE)[0]
    own = np.median(to_exit[..., 1:], axis=2)
    segments = np.diff(own, axis=1)
    entries = []
    for place in range(len(exits) - 1):
        deadline = float(own[:, place : place + 2].mean())
        taken, reached, late = [], [], []
        for part in parts:
            elapsed, answers = seconds(part, never, deadline)
            taken.append(elapsed)
            reached += [exits[exit_index] for exit_index in answers.exit_index]
            late.append(bool(answers.out_of_time.all()))
            assert answers.out_of_time.all() or (answers.exit_index == len(exits) - 1).all()
        over = np.array(taken) - deadline
        # The segment that may run when time is up: of those that this text has, the longest.
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
                "answered_at": {str(exit_): reached.count(exit_) for exit_ in exits},
            }
        )
    return entries


if __name__ == "__main__":
    main()
