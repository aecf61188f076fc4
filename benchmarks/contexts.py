"""Throughput and latency of concurrent calls: Python threads that share a backend of the native engine.

    python benchmarks/contexts.py [--shapes MiniLM-6 BERT-base]

Runs models in INT8 at full depth on sentences of SST-2 validation, in batches of several sizes. 1, 2, 4 and 8 Python
threads call one backend: "serialized" allows one call at a time, on all threads of the engine, as a backend without
contexts does; "shared" lets the engine divide its threads among the calls. "contexts" gives each of as many callers as
cores a context of one thread, also bound to a core. "short beside long" is the latency of one row while another
Python thread runs batches. A shape's figures replace those in `benchmarks/results/contexts.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from exit_mixes import sentences
from record import RESULTS, check_idle_machine, provenance, write_result
from shapes import SHAPES, random_artifact

from itrex_sweet.commands.bench import threads as set_threads
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.ragged import TokenBatch

SIZES = (1, 8, 32)
CALLERS = (1, 2, 4, 8)
SECONDS = 0.12  # of one timed run, about
ROWS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    check_idle_machine(1.0)
    path = RESULTS / "contexts.json"
    shapes = json.loads(path.read_text(encoding="utf-8"))["shapes"] if path.is_file() else {}
    with set_threads(options.threads):
        for name in options.shapes:
            shapes[name] = of_shape(name, options.threads, options.repeats)
    settings = {"threads": options.threads, "repeats": options.repeats, "callers": CALLERS, "sizes": SIZES}
    print(write_result("contexts", {**provenance(), "settings": settings, "shapes": shapes}))


def of_shape(name: str, threads: int, repeats: int) -> dict[str, Any]:
    """Measures all sizes of batches, and short calls beside long ones."""
    artifact = random_artifact(name)
    backend = NativeBackend(artifact, threads=threads)
    rows = sentences(artifact, ROWS)
    policy = Policy.uniform(len(artifact.exits), 1.0)
    result: dict[str, Any] = {"mean_tokens": round(float(rows.lengths.mean()), 1), "batches": {}}
    for size in SIZES:
        batches = [rows.select(np.arange(first, first + size)) for first in range(0, len(rows) - size + 1, size)]
        result["batches"][str(size)] = of_size(backend, batches, policy, threads, repeats)
    result["short beside long"] = short_beside_long(backend, rows, policy, repeats)
    return result


# A way to run one call: (caller, batch).
Run = Callable[[int, TokenBatch], Any]


def of_size(
    backend: NativeBackend, batches: Sequence[TokenBatch], policy: Policy, threads: int, repeats: int
) -> dict[str, Any]:
    """Measures every contender in turns: rows per second, and milliseconds per call."""
    calls = number_of_calls(backend, batches, policy)
    contenders: dict[str, tuple[int, Run, bool]] = {}
    for callers in CALLERS:
        contenders[f"serialized, {callers}"] = (callers, serialized(backend, policy), False)
        contenders[f"shared, {callers}"] = (callers, lambda _, batch: backend.answer(batch, policy), False)
    own = [backend.context(threads=1) for _ in range(threads)]
    contenders[f"contexts, {threads}"] = (threads, of_contexts(own, policy), False)
    contenders[f"contexts bound, {threads}"] = (threads, of_contexts(own, policy), True)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    latencies: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, (callers, run, is_bound) in contenders.items():
            seconds, single = timed(callers, run, batches, calls, is_bound)
            if repeat > 0:
                rates[name].append(calls * len(batches[0]) / seconds)
                latencies[name] += single
    return {
        name: {
            "rows_per_second": round(float(np.median(rates[name])), 1),
            "quartiles": [round(float(value), 1) for value in np.percentile(rates[name], (25, 75))],
            "milliseconds": percentiles(latencies[name]),
        }
        for name in contenders
    }


def serialized(backend: Backend, policy: Policy) -> Run:
    """Returns a run that allows one call at a time."""
    lock = threading.Lock()

    def run(_: int, batch: TokenBatch) -> None:
        with lock:
            backend.answer(batch, policy)

    return run


def of_contexts(contexts: Sequence[Backend], policy: Policy) -> Run:
    """Returns a run in which each caller has its own context."""
    return lambda caller, batch: contexts[caller].answer(batch, policy)


def number_of_calls(backend: Backend, batches: Sequence[TokenBatch], policy: Policy) -> int:
    """Returns the calls of one timed run, a multiple of the numbers of callers."""
    start = time.perf_counter()
    for batch in batches[:8]:
        backend.answer(batch, policy)
    each = (time.perf_counter() - start) / min(len(batches), 8)
    return max(1, round(SECONDS / each / max(CALLERS))) * max(CALLERS)


def timed(
    callers: int, run: Run, batches: Sequence[TokenBatch], calls: int, is_bound: bool
) -> tuple[float, list[float]]:
    """Returns the seconds of all calls, and those of each call."""
    single: list[float] = []
    start_together = threading.Barrier(callers + 1)

    def work(caller: int) -> None:
        own = [batches[place % len(batches)] for place in range(caller, calls, callers)]
        with bound_to_core(caller) if is_bound else contextlib.nullcontext():
            start_together.wait()
            for batch in own:
                start = time.perf_counter()
                run(caller, batch)
                single.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    start_together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start, single


@contextlib.contextmanager
def bound_to_core(index: int) -> Any:
    """Binds the calling thread to one processor of its affinity."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[index % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def short_beside_long(backend: NativeBackend, rows: TokenBatch, policy: Policy, repeats: int) -> dict[str, Any]:
    """Measures calls of one row while another thread runs batches of the greatest size."""
    size = max(SIZES)
    long, short = rows.select(np.arange(size)), [rows.select(np.array([place])) for place in range(size)]
    runs = {"serialized": serialized(backend, policy), "shared": lambda _, batch: backend.answer(batch, policy)}
    latencies: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            stop = threading.Event()
            beside = threading.Thread(target=lambda run=run, stop=stop: [run(0, long) for _ in iter(stop.is_set, True)])
            beside.start()
            until = time.perf_counter() + 2 * SECONDS
            while time.perf_counter() < until:
                time.sleep(0.002)
                start = time.perf_counter()
                run(1, short[len(latencies[name]) % size])
                latencies[name].append(time.perf_counter() - start)
            stop.set()
            beside.join()
    return {name: percentiles(values) for name, values in latencies.items()}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Returns the median and the 95th percentile in milliseconds."""
    p50, p95 = np.percentile(np.asarray(seconds) * 1000, (50, 95))
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


if __name__ == "__main__":
    main()
