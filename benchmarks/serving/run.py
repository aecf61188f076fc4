"""Measures the server beside others: throughput, latency at equal load, segments beside batches, overload.

The part `processes` compares one process with two that listen on the same port, each with half of the threads.

    .venv-bench/bin/python benchmarks/serving/prepare.py --runs RUNS
    .venv-bench/bin/python benchmarks/serving/run.py --parts peers --workloads sst2 --sizes 1

A part starts its servers side by side and loads one after the other. Repeated runs add to the result, which keeps all
of them; tables show medians. `--infinity` names the interpreter of an environment with
`infinity-emb[server,optimum,torch]`, which needs other versions than this one.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from record import RESULTS, RUNS, provenance, write_result

from serving import servers
from serving.generator import Load, closed_loop, open_loop
from serving.prepare import MODELS, files_of
from serving.servers import Running, Server
from serving.workloads import TASKS, WORKLOADS, requests_of, score

RESULT = "serving"
BOUND = 50.0  # milliseconds of the 99th percentile
CLIENTS = 64  # of the closed loop that finds the saturation load
FRACTIONS = (0.97, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2)  # of saturation, tried for the bound
LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)  # of saturation, for segments beside batches
OVERLOAD = 3.0
OVERLOADED = ("--max-concurrent-requests", "128")
# Rows at most: the fastest of 4 to 64 for ONNX Runtime, and of 4, 8 and 16 for OpenVINO, on two cores.
PEER_BATCH = 4
BATCHING: dict[str, dict[str, Any]] = {"onnxruntime": {}, "openvino": {"multiple": 8}}  # further settings
NAMES = [f"LABEL_{place}" for place in range(4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 8], help="texts per request")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--infinity", type=Path, help="interpreter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2, help="on one port, in the part of that name")
    parser.add_argument("--seconds", type=float, default=2.5, help="of one load")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the servers
    for part in options.parts:
        for workload in options.workloads:
            for size in options.sizes:
                start = time.perf_counter()
                outcome = PARTS[part](workload, size, options)
                if outcome is not None:
                    _keep(part, f"{workload}-{size}", outcome)
                    print(part, workload, size, f"{time.perf_counter() - start:.0f} s", json.dumps(outcome), flush=True)


def _keep(part: str, key: str, outcome: dict[str, Any]) -> None:
    """Appends an outcome to the result."""
    path = RESULTS / f"{RESULT}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"parts": {}}
    result["parts"].setdefault(part, {}).setdefault(key, []).append(outcome)
    write_result(
        RESULT, {**provenance(), "settings": {"bound_ms": BOUND, "clients": CLIENTS}, "parts": result["parts"]}
    )


class Bench:
    """Servers of one workload that are running, and requests for each."""

    def __init__(self, stack: ExitStack, wanted: list[Server], workload: str, size: int, options: Any):
        from tokenizers import Tokenizer

        self.size, self.options, self._seed = size, options, 1000 * options.seed
        tokenizer = Tokenizer.from_file(str(files_of(TASKS[workload], options.models)["plain"] / "tokenizer.json"))
        tokenizer.no_truncation()  # of the fine-tuning; `mixed` has longer texts
        self.running = {
            server.title: stack.enter_context(Running(server, RUNS / "serving" / f"{place}.log"))
            for place, server in enumerate(wanted)
        }
        self._requests = {
            title: requests_of(workload, each.server.dialect, size, tokenizer) for title, each in self.running.items()
        }
        for each in self.running.values():
            each.wait_until_ready()
        for title in self.running:
            self.saturate(title, 1.0)

    def saturate(self, title: str, seconds: float | None = None) -> dict[str, Any]:
        """Returns the figures of a closed loop."""
        return self._figures(
            title,
            lambda port, requests: closed_loop(
                port, requests, CLIENTS, seconds or self.options.seconds, self.next_seed()
            ),
        )

    def load(self, title: str, rate: float, seconds: float | None = None, seed: int | None = None) -> dict[str, Any]:
        """Returns the figures of an open loop with `rate` requests per second.

        Args:
            seed: of the arrivals; by default one that no other load has.
        """
        seed = self.next_seed() if seed is None else seed
        figures = self._figures(
            title, lambda port, requests: open_loop(port, requests, rate, seconds or self.options.seconds, seed)
        )
        return {"rate": round(rate, 2), **figures}

    def _figures(self, title: str, send: Any) -> dict[str, Any]:
        running, (requests, truths) = self.running[title], self._requests[title]
        before = running.processor_seconds()
        load: Load = send(running.port, requests)
        spent = running.processor_seconds() - before
        figures = load.summary()
        figures["texts_per_second"] = round(figures["per_second"] * self.size, 2)
        figures["server_cores"] = round(spent / load.wall, 3)
        figures["accuracy"] = score(load, running.server.dialect, truths, NAMES)
        self.last = load
        return figures

    def next_seed(self) -> int:
        """Returns a seed that was not used before."""
        self._seed += 1
        return self._seed


def own(
    workload: str, options: Any, title: str = "itrex-sweet", more: tuple[str, ...] = (), threads: int | None = None
) -> Server:
    """Returns this package's server for a workload."""
    artifact = files_of(TASKS[workload], options.models)["artifact"]
    if workload == "mixed":
        more = (*more, "--max-input-length", "512")
    return servers.sweet(artifact, title, threads or options.threads, more)


def batching(engine: str, workload: str, options: Any, threads: int, processes: int = 1) -> Server:
    """Returns the FastAPI server of an engine, with `threads` threads in each process."""
    files = files_of(TASKS[workload], options.models)
    more = {"batch": PEER_BATCH, **BATCHING[engine]}
    return servers.batching(engine, files[engine], files["plain"] / "tokenizer.json", NAMES, threads, processes, **more)


def peers(workload: str, size: int, options: Any) -> dict[str, Any]:
    """Returns saturation, throughput within the bound, and latencies at half of both saturations."""
    files = files_of(TASKS[workload], options.models)
    wanted = [own(workload, options)]
    if options.infinity:
        wanted.append(servers.infinity(options.infinity, files["infinity"], "optimum", options.threads))
    wanted += [batching(engine, workload, options, options.threads) for engine in BATCHING]
    with ExitStack() as stack:
        bench = Bench(stack, wanted, workload, size, options)
        figures: dict[str, dict[str, Any]] = {title: {} for title in bench.running}
        for title in figures:
            figures[title]["saturation"] = bench.saturate(title)
        saturation = {title: each["saturation"]["per_second"] for title, each in figures.items()}
        if silent := [title for title, value in saturation.items() if not value]:
            raise SystemExit(f"{' and '.join(silent)} answered nothing in time: use a longer --seconds.")
        best = max(value for title, value in saturation.items() if title != wanted[0].title)
        for title in figures:
            figures[title]["equal load"] = bench.load(title, best / 2, 1.4 * options.seconds)
        for title in figures:
            figures[title]["half of its own"] = bench.load(title, saturation[title] / 2)
        for title in figures:
            figures[title]["within the bound"] = _within_the_bound(bench, title, saturation[title])
        for title, running in bench.running.items():
            figures[title]["memory_mb"] = round(running.memory() / 2**20)
    return figures


def _within_the_bound(bench: Bench, title: str, saturation: float) -> dict[str, Any]:
    """Returns the figures of the highest load whose 99th percentile is within the bound."""
    for fraction in FRACTIONS:
        outcome = bench.load(title, fraction * saturation)
        if outcome["p99"] <= BOUND and not outcome["refused"]:
            return outcome
    return {"rate": 0.0, "per_second": 0.0, "texts_per_second": 0.0}


def processes(workload: str, size: int, options: Any) -> dict[str, Any]:
    """Returns saturation and throughput within the bound of servers of one process and of several on one port."""
    count = options.processes
    share = max(options.threads // count, 1)
    shared = own(workload, options, more=("--reuse-port",), threads=share)
    wanted = [own(workload, options), servers.replicated(shared, count)]
    for engine in BATCHING:
        wanted += [
            batching(engine, workload, options, options.threads),
            batching(engine, workload, options, share, count),
        ]
    with ExitStack() as stack:
        bench = Bench(stack, wanted, workload, size, options)
        figures: dict[str, dict[str, Any]] = {}
        for title in bench.running:
            figures[title] = {"saturation": bench.saturate(title)}
        for title in figures:
            rate = figures[title]["saturation"]["per_second"]
            figures[title]["within the bound"] = _within_the_bound(bench, title, rate)
            figures[title]["memory_mb"] = round(bench.running[title].memory() / 2**20)
    return figures


def scheduling(workload: str, size: int, options: Any) -> dict[str, Any]:
    """Returns figures of segments beside batches, at fractions of the saturation load of the segments."""
    wanted = [
        own(workload, options, "segments"),
        own(workload, options, "batches", ("--scheduling", "batches")),
    ]
    with ExitStack() as stack:
        bench = Bench(stack, wanted, workload, size, options)
        figures: dict[str, Any] = {title: {"saturation": bench.saturate(title)} for title in bench.running}
        best = figures["segments"]["saturation"]["per_second"]
        titles = list(bench.running)
        for fraction in LOADS:
            seed = bench.next_seed()  # the same arrivals for both
            for title in titles:
                figures[title][f"{fraction:g}"] = bench.load(title, fraction * best, seed=seed)
            titles.reverse()
    return figures


def overhead(workload: str, size: int, options: Any) -> dict[str, Any] | None:
    """Returns the milliseconds of one request at a time: through the server, and by `predict` in this process."""
    import itrex_sweet
    from serving.workloads import texts_of

    if workload == "mixed" or size != 1:
        return None
    texts, _ = texts_of(workload)
    classifier = itrex_sweet.load(files_of(TASKS[workload], options.models)["artifact"], threads=options.threads)
    with ExitStack() as stack:
        bench = Bench(stack, [own(workload, options)], workload, size, options)
        bench.size = 1
        served, called = [], []
        for _ in range(5):
            running = bench.running["itrex-sweet"]
            requests, _truths = bench._requests["itrex-sweet"]
            load = closed_loop(running.port, requests, 1, 1.5, bench.next_seed())
            served.append(float(np.median(load.latencies())))
            chosen = [texts[request] for request in load.requests.tolist()[:2000]]
            times = []
            for text in chosen:
                start = time.perf_counter()
                classifier.predict([text])
                times.append(time.perf_counter() - start)
            called.append(1000 * float(np.median(times)))
    return {
        "server_p50_ms": round(float(np.median(served)), 4),
        "predict_p50_ms": round(float(np.median(called)), 4),
        "overhead_ms": round(float(np.median(np.array(served) - np.array(called))), 4),
    }


def overload(workload: str, size: int, options: Any) -> dict[str, Any]:
    """Returns figures of up to three times the capacity, with and without lower quality under load."""
    artifact = files_of(TASKS[workload], options.models)["artifact"]
    settings = json.loads((artifact / "sweet_config.json").read_text(encoding="utf-8"))
    # without load, the calibrated policy next to full depth; the certified one is the floor
    careful = ",".join(map(repr, settings["calibration"]["candidates"][1]["thresholds"]))
    more = ("--threshold", careful, *OVERLOADED)
    wanted = [
        own(workload, options, "refuse", more),
        own(workload, options, "degrade", (*more, "--under-load", "degrade")),
    ]
    with ExitStack() as stack:
        bench = Bench(stack, wanted, workload, size, options)
        capacity = bench.saturate("refuse")
        figures: dict[str, Any] = {"capacity": capacity}
        for title in bench.running:
            figures[title] = {"1": bench.load(title, capacity["per_second"])}
            for factor in (1.5, OVERLOAD):
                outcome = bench.load(title, factor * capacity["per_second"], 4.0)
                load = bench.last
                refused = np.isin(load.status, (429, 503))
                waits = 1000 * (load.done - load.scheduled)[refused]
                outcome["refused_p50"], outcome["refused_p99"] = (
                    [round(float(value), 3) for value in np.percentile(waits, (50, 99))]
                    if refused.any()
                    else (None, None)
                )
                figures[title][f"{factor:g}"] = outcome
    return figures


PARTS = {"peers": peers, "processes": processes, "scheduling": scheduling, "overhead": overhead, "overload": overload}

if __name__ == "__main__":
    main()
