"""Measure an artifact on every available backend, at full depth and with its stored policy.

Milliseconds are wall-clock time per text without tokenization, medians of interleaved rounds. Without --data, rows of
random tokens are measured: times at full depth are then valid for texts of these lengths, times of early exit are
not."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itrex_sweet.commands import options
from itrex_sweet.defaults import DEFAULT_BATCH_SIZE, DEFAULT_TIMED_ROWS
from itrex_sweet.errors import BackendUnavailable, ConfigError, SweetError

if TYPE_CHECKING:
    from itrex_sweet.modeling import SweetModelForSequenceClassification
    from itrex_sweet.policy import Policy
    from itrex_sweet.runtime.ragged import TokenBatch

SUMMARY = "measure the speed of an artifact on every available backend"

_BATCH_SIZES, _REPEATS = (1, DEFAULT_BATCH_SIZE), 5
_TOKENS = (8, 64)  # of random rows, at least and at most
_MAX_RANDOM_ROWS = 1_000_000
_TRIAL_ROWS, _MIN_ROWS, _SECONDS = 8, 16, 60.0  # unless the user names a number of rows
_SHARE_OF_FULL_DEPTH = 0.75  # time of full depth and of the stored policy, on average
FULL, STORED = "full depth", "stored policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet bench`."""
    parser.add_argument("directory", metavar="DIR", help="an artifact, or its name on the Hub")
    parser.add_argument("--data", metavar="FILE", help="texts (default: random tokens)")
    options.add_columns(parser, labels=False)
    parser.add_argument(
        "--rows",
        type=options.positive,
        metavar="N",
        help=f"rows to time (default: up to {DEFAULT_TIMED_ROWS}, fewer if a backend is slow)",
    )
    parser.add_argument(
        "--tokens",
        type=options.positive,
        metavar="N",
        help="tokens of every random row (default: {} to {})".format(*_TOKENS),
    )
    parser.add_argument("--max-length", type=options.positive, metavar="N", help="maximum number of tokens per text")
    group = parser.add_argument_group("running")
    group.add_argument("--engines", nargs="+", metavar="NAME", help="backends (default: all that are available)")
    group.add_argument(
        "--batch-size",
        nargs="+",
        type=options.positive,
        default=_BATCH_SIZES,
        metavar="N",
        help="(default: {} {})".format(*_BATCH_SIZES),
    )
    group.add_argument("--threads", type=options.positive, metavar="N", help="number of threads")
    group.add_argument(
        "--repeats", type=options.positive, default=_REPEATS, metavar="N", help="rounds (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Measures the artifact and prints the times."""
    if args.threads is None:
        return _run(args)
    with threads(args.threads):
        return _run(args)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Keeps every engine loaded inside to a number of threads: torch by its setting, others by the cores allowed.

    Raises:
        ConfigError: fewer physical cores may be used here.
    """
    import torch

    allowed: set[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    cores: dict[str, int] = {}
    for cpu in sorted(allowed):
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            siblings = str(cpu)
        cores.setdefault(siblings, cpu)
    if allowed and count > len(cores):
        raise ConfigError(f"threads={count}: this process may use {len(cores)} cores.")
    before = torch.get_num_threads()
    torch.set_num_threads(count)  # before a backend packs anything for a number of threads
    try:
        if count < len(cores):
            os.sched_setaffinity(0, set(list(cores.values())[:count]))
        yield
    finally:
        torch.set_num_threads(before)
        if allowed:
            os.sched_setaffinity(0, allowed)


def _run(args: argparse.Namespace) -> int:
    from itrex_sweet.artifact import open_artifact
    from itrex_sweet.evaluation.timing import milliseconds_per_row
    from itrex_sweet.hub import fetch
    from itrex_sweet.runtime.machine import Machine

    directory = fetch(args.directory)
    artifact = open_artifact(directory, weights=False)
    models, loaded, skipped = _models(directory, args.engines)
    rows, source = _rows(args, next(iter(models.values())))
    if args.rows is None:
        rows = _rows_in_time(models, rows, 2 * len(args.batch_size) * (1 + args.repeats))
    tasks: dict[tuple[str, int, str], _Task] = {}
    for engine, model in models.items():
        for size in dict.fromkeys(args.batch_size):
            for name, policy in ((FULL, model.policy.with_threshold(1.0)), (STORED, model.policy)):
                tasks[engine, size, name] = _Task(model, rows, policy, size)
    medians = milliseconds_per_row(tasks, len(rows), args.repeats)
    facts = {
        "artifact": directory.name,
        "precision": artifact.precision,
        "exits": list(artifact.exits),
        "thresholds": list(artifact.policy.thresholds),
        "rows": len(rows),
        "source": source,
        "mean_tokens": float(rows.lengths.mean()),
        "repeats": args.repeats,
        "machine": Machine.here().to_dict(),
        "loaded": loaded,
        "left_out": skipped,
        "timings": [_timing(key, task, medians) for key, task in tasks.items()],
    }
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else _shown(facts, Machine.here().describe()))
    return 0


class _Task:
    """One pass over the rows, which row by row also notes the seconds of each."""

    def __init__(self, model: SweetModelForSequenceClassification, rows: TokenBatch, policy: Policy, size: int):
        import numpy as np

        self.mean_layers: float | None = None
        self._seconds: list[float] = []
        self._model, self._policy = model, policy
        self._answer = self._one_by_one if size == 1 else self._at_once
        self._size = size
        self._batches = [rows.select(np.array([row])) for row in range(len(rows))] if size == 1 else [rows]

    def __call__(self) -> None:
        layers = self._answer()
        if self.mean_layers is None:
            self.mean_layers = sum(layers) / len(layers)

    def after_warm_up(self) -> list[float]:
        """Returns the seconds of single rows without the first pass."""
        return self._seconds[len(self._batches) :]

    def _at_once(self) -> list[int]:
        answers = self._model.executor.run(self._batches[0], self._policy, self._size)
        return self._model.exit_layers(answers).tolist()

    def _one_by_one(self) -> list[int]:
        given = []
        for row in self._batches:
            start = time.perf_counter()
            given.append(self._model.executor.run(row, self._policy, 1))
            self._seconds.append(time.perf_counter() - start)
        return [int(self._model.exit_layers(answers)[0]) for answers in given]


def _models(
    directory: Any, requested: list[str] | None
) -> tuple[dict[str, SweetModelForSequenceClassification], dict[str, dict[str, float | None]], dict[str, str]]:
    """Loads the artifact on each backend; returns models, load times, and the reasons for skipped backends.

    Raises:
        BackendUnavailable: no backend runs, or a requested one does not.
    """
    from itrex_sweet.modeling import SweetModelForSequenceClassification
    from itrex_sweet.runtime.backends import BACKENDS, unavailable_reason

    models, loaded, skipped = {}, {}, {}
    for name in dict.fromkeys(requested or BACKENDS):
        reason = None if requested else unavailable_reason(name)
        if reason is None:
            start = time.perf_counter()
            try:
                models[name] = SweetModelForSequenceClassification.from_pretrained(directory, backend=name)
                loaded[name] = {
                    "seconds": time.perf_counter() - start,
                    "weight_bytes": getattr(models[name].backend, "weight_bytes", None),
                }
            except SweetError as error:
                if requested:
                    raise
                reason = str(error)
        if reason is not None:
            skipped[name] = reason
    if not models:
        raise BackendUnavailable(f"no backend runs {directory} here: {skipped}")
    return models, loaded, skipped


def _rows_in_time(models: dict[str, SweetModelForSequenceClassification], rows: TokenBatch, passes: int) -> TokenBatch:
    """Returns the first rows, as many as all models run in about `_SECONDS`, by a trial at full depth."""
    import numpy as np

    from itrex_sweet.evaluation.timing import rows_within

    trial, seconds = rows.select(np.arange(min(_TRIAL_ROWS, len(rows)))), 0.0
    for model in models.values():
        policy = model.policy.with_threshold(1.0)
        model.executor.run(trial, policy)  # the first call may compile
        start = time.perf_counter()
        model.executor.run(trial, policy)
        seconds += time.perf_counter() - start
    per_row = _SHARE_OF_FULL_DEPTH * passes * seconds / len(trial)
    return rows.select(np.arange(min(rows_within(_SECONDS, per_row, (_MIN_ROWS, DEFAULT_TIMED_ROWS)), len(rows))))


def _rows(args: argparse.Namespace, model: SweetModelForSequenceClassification) -> tuple[TokenBatch, str]:
    """Returns the rows to time, and a description of their source."""
    import numpy as np

    from itrex_sweet.data import read_rows
    from itrex_sweet.runtime.ragged import TokenBatch

    count = args.rows or DEFAULT_TIMED_ROWS
    if args.data is not None:
        rows = read_rows(args.data, None, args.text_column, args.pair_column, None, count)
        return model.read(rows.texts, args.max_length), rows.source
    if count > _MAX_RANDOM_ROWS:
        raise ConfigError(f"rows={count}: random rows take equal times; use at most {_MAX_RANDOM_ROWS}.")
    random = np.random.default_rng(0)
    longest = min(model.backend.max_tokens or 512, args.max_length or 512)
    least, most = (args.tokens, args.tokens) if args.tokens else _TOKENS
    lengths = random.integers(min(least, longest), min(most, longest), count, endpoint=True)
    first = min(1000, model.backend.vocabulary // 2)  # after the special tokens
    ids = [random.integers(first, model.backend.vocabulary, length).tolist() for length in lengths]
    return TokenBatch.from_rows(ids, None, model.backend.padding_idx), "random tokens"


def _timing(key: tuple[str, int, str], task: _Task, medians: dict[Any, float]) -> dict[str, Any]:
    """Returns the facts of one task; times in milliseconds."""
    import numpy as np

    engine, size, policy = key
    counted = 1000.0 * np.asarray(task.after_warm_up()) if size == 1 else None
    return {
        "engine": engine,
        "batch_size": size,
        "policy": policy,
        "milliseconds_per_row": medians[key],
        "rows_per_second": 1000.0 / medians[key],
        "p50": None if counted is None else float(np.percentile(counted, 50)),
        "p95": None if counted is None else float(np.percentile(counted, 95)),
        "mean_layers": task.mean_layers,
    }


def _shown(facts: dict[str, Any], machine: str) -> str:
    """Returns the table with its explanation."""
    from itrex_sweet.evaluation.tables import figure, plain_table

    headings = ["backend", "batch", "rows leave by", "layers", "ms/row", "p50", "p95", "rows/s"]
    rows = [
        [
            row["engine"],
            str(row["batch_size"]),
            row["policy"],
            figure(row["mean_layers"]),
            figure(row["milliseconds_per_row"], 3),
            figure(row["p50"], 3),
            figure(row["p95"], 3),
            figure(row["rows_per_second"], 0),
        ]
        for row in facts["timings"]
    ]
    lines = [
        f"{facts['artifact']} ({facts['precision']}, exits {'/'.join(map(str, facts['exits']))}): {facts['rows']} rows "
        f"of {facts['mean_tokens']:.1f} tokens on average, {facts['source']}",
        "",
        plain_table(headings, rows),
        "",
        f"Medians of {facts['repeats']} rounds, without tokenization, on {machine}.",
    ]
    if facts["source"] == "random tokens":
        lines.append("The rows are random: what the stored policy saves on them says nothing about real texts.")
    for name, took in facts["loaded"].items():
        held = f"; {took['weight_bytes'] / 1e6:.1f} MB of packed weights" if took["weight_bytes"] else ""
        lines.append(f"Loaded {name} in {took['seconds']:.2f} s{held}.")
    lines += [f"Left out: {name} ({reason})" for name, reason in facts["left_out"].items()]
    return "\n".join(lines)
