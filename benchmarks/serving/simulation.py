"""Discrete-event simulation of servers on many cores, fed by measured costs, and checked against measured loads.

    .venv-bench/bin/python benchmarks/serving/simulation.py --measure      # costs, on an idle machine
    .venv-bench/bin/python benchmarks/serving/simulation.py                # checks and predictions

A machine has event loops (HTTP, tokenization), each of which handles one request at a time, and engines. An engine is
one thread, or a team of threads that share one batch, and runs one segment of one batch at a time. With `segments`,
survivors wait at their exit for others, and the rows that give most answers per second run next, unless some have been
passed over for `HOLD_SECONDS`, as `runtime/dispatch.py` does. With `batches`, a batch runs to its last exit before the
next one starts. Costs of a segment are affine in rows and tokens. Event loops and engines use cores of their own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from record import RESULTS, provenance, write_result

from serving.generator import exact_percentile, poisson

RESULT = "serving_simulation"
RATES = (10, 1000, 100_000)
BOUND = 50.0  # milliseconds of the 99th percentile
PRICE = 0.04  # US dollars of a core and hour, about the list price of a virtual core with its memory
BATCH_ROWS, BATCH_TOKENS = 32, 4096
HOLD_SECONDS = 0.01  # rows between exits are passed over so long at most
REQUEST_BYTES, ANSWER_BYTES = 500, 250  # with headers; a text of 200 characters
EVENTS = 10_000  # arrivals simulated
SIZES = (1, 2, 4, 8, 16, 32)  # rows, to measure costs


@dataclass(frozen=True)
class Costs:
    """Measured costs.

    Args:
        segments: per exit, seconds of a run to it on one thread: (fixed, per row, per token).
        speedup: of a team of two threads, by rows of a batch; interpolated.
        request: seconds of the event loop per request, HTTP and tokenization together.
        exits: (texts,) index of the exit of each text.
        tokens: (texts,) tokens of each text.
    """

    segments: tuple[tuple[float, float, float], ...]
    speedup: dict[int, float]
    request: float
    exits: np.ndarray
    tokens: np.ndarray

    def seconds(self, exit_index: int, rows: int, tokens: int, threads: int) -> float:
        """Returns the seconds of a run of a segment."""
        fixed, per_row, per_token = self.segments[exit_index]
        alone = fixed + per_row * rows + per_token * tokens
        if threads == 1:
            return alone
        two = float(np.interp(rows, list(self.speedup), list(self.speedup.values())))
        share = min(2 - 2 / max(two, 1.0), 1.0)  # Amdahl's law, from the speed-up of two threads
        return alone * (1 - share + share / threads)


@dataclass(frozen=True)
class Machine:
    """Event loops and engines.

    Args:
        loops: event loops.
        engines: number of engines.
        threads: of each engine.
        is_continuous: segments, or batches.
    """

    loops: int
    engines: int
    threads: int = 1
    is_continuous: bool = True

    @property
    def cores(self) -> int:
        """Cores of loops and engines."""
        return self.loops + self.engines * self.threads


def simulate(costs: Costs, machine: Machine, rate: float, count: int = EVENTS, seed: int = 0) -> dict[str, float]:
    """Returns mean and percentiles of the latency in milliseconds, and busy shares of event loops and engines.

    Args:
        rate: requests per second, of one text each.
        count: arrivals; the first tenth is not counted.
        seed: of arrivals and texts.
    """
    times, texts = poisson(rate, count / rate, len(costs.exits), seed)
    exits, tokens = costs.exits[texts], costs.tokens[texts]
    done = np.full(len(times), np.nan)
    queues: list[deque[int]] = [deque() for _ in costs.segments]
    events: list[tuple[float, int, int, tuple[int, list[int]] | None]] = []  # time, order, kind, work
    order = 0
    loops = [0.0] * machine.loops
    for row, arrival in enumerate(times.tolist()):  # each loop serves its requests in their order
        place = row % machine.loops
        loops[place] = max(loops[place], arrival) + costs.request
        heapq.heappush(events, (loops[place], order, 0, (0, [row])))
        order += 1
    idle, busy = machine.engines, 0.0

    share_leaving = [
        float((costs.exits == place).sum() / max((costs.exits >= place).sum(), 1)) for place in range(len(queues))
    ]
    mean_tokens = float(costs.tokens.mean())
    held_since = np.zeros(len(times))  # when a row was put back

    def rate_of(place: int) -> float:
        rows = min(len(queues[place]), BATCH_ROWS)
        return rows * share_leaving[place] / costs.seconds(place, rows, int(rows * mean_tokens), machine.threads)

    def take(now: float) -> tuple[int, list[int]] | None:
        filled = [place for place, queue in enumerate(queues) if queue]
        if not filled:
            return None
        overdue = [place for place in filled if place and now - held_since[queues[place][0]] >= HOLD_SECONDS]
        if overdue:
            place = min(overdue, key=lambda each: (queues[each][0], -each))
        else:
            place = max(filled, key=lambda each: (rate_of(each), each))
        queue, rows, total = queues[place], [], 0
        while queue and len(rows) < BATCH_ROWS and (not rows or total + tokens[queue[0]] <= BATCH_TOKENS):
            total += tokens[queue[0]]
            rows.append(queue.popleft())
        return place, rows

    while events:
        now, _, kind, work = heapq.heappop(events)
        exit_index, rows = work
        if kind == 0:
            queues[0].append(rows[0])
        else:
            left = [row for row in rows if exits[row] <= exit_index]
            stay = [row for row in rows if exits[row] > exit_index]
            done[left] = now
            if stay and not machine.is_continuous:
                spent = costs.seconds(exit_index + 1, len(stay), int(tokens[stay].sum()), machine.threads)
                busy += spent
                heapq.heappush(events, (now + spent, order, 1, (exit_index + 1, stay)))
                order += 1
                continue
            if stay:
                queues[exit_index + 1].extend(stay)
                held_since[stay] = now
            idle += 1
        while idle and (chosen := take(now)) is not None:
            place, taken = chosen
            spent = costs.seconds(place, len(taken), int(tokens[taken].sum()), machine.threads)
            busy += spent
            idle -= 1
            heapq.heappush(events, (now + spent, order, 1, (place, taken)))
            order += 1
    latencies = np.sort(1000 * (done - times)[len(times) // 10 :])
    span = float(times[-1])
    return {
        **{f"p{percent:g}": round(exact_percentile(latencies, percent), 3) for percent in (50, 99, 99.9)},
        "mean": round(float(latencies.mean()), 3),
        "loop_share": round(len(times) * costs.request / span / machine.loops, 3),
        "engine_share": round(busy / span / machine.engines, 3),
    }


def smallest(
    costs: Costs, rate: float, threads: int = 1, is_continuous: bool = True
) -> tuple[Machine, dict[str, float]] | None:
    """Returns the machine with the fewest cores that keeps the 99th percentile within `BOUND`, and its figures."""
    loops = max(1, int(np.ceil(rate * costs.request / 0.7)))  # an event loop that is busier than that queues
    alone = sum(costs.seconds(place, 1, int(costs.tokens.mean()), 1) for place in range(int(costs.exits.max()) + 1))
    high = max(1, int(np.ceil(2 * rate * alone / threads)))

    def attempt(engines: int) -> tuple[Machine, dict[str, float]]:
        machine = Machine(loops, engines, threads, is_continuous)
        return machine, simulate(costs, machine, rate)

    found = attempt(high)
    if found[1]["p99"] > BOUND:
        return None
    low = 0
    while high - low > max(1, high // 30):
        middle = (low + high) // 2
        tried = attempt(middle)
        if tried[1]["p99"] <= BOUND and tried[1]["engine_share"] < 1:
            high, found = middle, tried
        else:
            low = middle
    return found


def predict(costs: Costs) -> dict[str, Any]:
    """Returns cores, cost per million texts, tail and bottleneck for each rate and kind of machine."""
    kinds = {
        "one-thread contexts, segments": (1, True),
        "one-thread contexts, batches": (1, False),
        "teams of 4, segments": (4, True),
        "teams of 4, batches": (4, False),
    }
    rows = []
    for rate in RATES:
        for name, (threads, is_continuous) in kinds.items():
            found = smallest(costs, rate, threads, is_continuous)
            if found is None:
                rows.append({"rate": rate, "kind": name, "cores": None})
                continue
            machine, figures = found
            rows.append(
                {
                    "rate": rate,
                    "kind": name,
                    "cores": machine.cores,
                    "loops": machine.loops,
                    "engines": machine.engines,
                    "dollars_per_million": round(1e6 / rate / 3600 * machine.cores * PRICE, 4),
                    "network_gbit": round(8e-9 * rate * (REQUEST_BYTES + ANSWER_BYTES), 3),
                    **figures,
                }
            )
    return {"rows": rows}


def fitted(costs: dict[str, Any]) -> Costs:
    """Returns the costs of a stored measurement."""
    return Costs(
        tuple(tuple(each) for each in costs["segments"]),
        {int(rows): value for rows, value in costs["speedup"].items()},
        costs["request_seconds"],
        np.asarray(costs["exits"]),
        np.asarray(costs["tokens"]),
    )


def measure(artifact: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Returns costs of segments on one thread, speed-ups of two, and exit and tokens of each text."""
    import itrex_sweet

    spent: dict[int, list[list[tuple[float, float, float]]]] = {}
    for threads in (1, 2):
        classifier = itrex_sweet.load(artifact, backend="native", threads=threads)
        spent[threads] = _segments(classifier, texts)
    segments = []
    for points in spent[1]:
        rows, tokens, seconds = np.array(points).T
        design = np.stack([np.ones_like(rows), rows, tokens], axis=1) / seconds[:, None]  # relative errors
        found = np.linalg.lstsq(design, np.ones_like(rows), rcond=None)[0]
        segments.append([float(max(value, 0.0)) for value in found])
    ratios: dict[int, list[float]] = {}
    for one, two in zip(spent[1], spent[2], strict=True):
        for (rows, _, first), (_, _, second) in zip(one, two, strict=True):
            ratios.setdefault(int(rows), []).append(first / second)
    answers = classifier.predict(list(texts))
    exits = [classifier.artifact.exits.index(answer["exit_layer"]) for answer in answers]
    lengths = classifier.read(list(texts)).lengths.tolist()
    return {
        "segments": segments,
        "speedup": {rows: round(float(np.median(values)), 3) for rows, values in ratios.items()},
        "exits": exits,
        "tokens": [int(value) for value in lengths],
    }


def _segments(classifier: Any, texts: Sequence[str]) -> list[list[tuple[float, float, float]]]:
    """Returns rows, tokens and the least seconds of a run, per exit: embedding or advancing, and the probe."""
    backend = classifier.backend
    points: list[list[tuple[float, float, float]]] = [[] for _ in classifier.artifact.exits]
    for size in SIZES:
        for start in (0, 100, 200):
            batch = classifier.read(list(texts[start : start + size]))
            best = [np.inf] * len(points)
            for _ in range(8):
                hidden = None
                for place in range(len(points)):
                    begin = time.perf_counter()
                    hidden = backend.embed(batch) if hidden is None else backend.advance(place - 1, hidden)
                    backend.probe(place, hidden)
                    best[place] = min(best[place], time.perf_counter() - begin)
            for place, seconds in enumerate(best):
                points[place].append((len(batch), float(batch.cu_seqlens[-1]), seconds))
    return points


def check(costs: Costs, measured: dict[str, Any], engines: int, threads: int) -> list[dict[str, float]]:
    """Returns measured and simulated latencies at the loads of `run.py`'s part `scheduling`."""
    rows = []
    for kind, is_continuous in (("segments", True), ("batches", False)):
        for name, figures in measured.get(kind, {}).items():
            if name == "saturation":
                continue
            machine = Machine(1, engines, threads, is_continuous)
            simulated = simulate(costs, machine, figures["rate"], EVENTS)
            rows.append(
                {
                    "kind": kind,
                    "load": float(name),
                    "rate": figures["rate"],
                    **{f"measured_{key}": figures[key] for key in ("p50", "p99")},
                    **{f"simulated_{key}": simulated[key] for key in ("p50", "p99")},
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--workload", default="ag_news")
    parser.add_argument("--models", type=Path)
    options = parser.parse_args()
    from serving.prepare import MODELS, files_of
    from serving.workloads import TASKS, texts_of

    path = RESULTS / f"{RESULT}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if options.measure:
        texts, _ = texts_of(options.workload)
        result["costs"] = measure(files_of(TASKS[options.workload], options.models or MODELS)["artifact"], texts[:1000])
        result["workload"] = options.workload
    parts = json.loads((RESULTS / "serving.json").read_text(encoding="utf-8"))["parts"]
    overheads = parts.get("overhead", {}).get(f"{result['workload']}-1", [])
    loads = parts.get("scheduling", {}).get(f"{result['workload']}-1", [])
    result["costs"]["request_seconds"] = request_seconds(result["costs"], loads)
    costs = fitted(result["costs"])
    result["check"] = check(costs, loads[-1], 2, 1) if loads else []
    result["predictions"] = predict(costs)
    result["price"], result["bound_ms"] = PRICE, BOUND
    write_result(RESULT, {**provenance(), **result})
    print(json.dumps({"overheads": overheads, "check": result["check"], **result["predictions"]}, indent=1))


def request_seconds(costs: dict[str, Any], loads: list[dict[str, Any]]) -> float:
    """Returns the processor time per request that the engine does not explain, at the highest load within saturation.

    That is HTTP, tokenization and scheduling.
    """
    if not loads:
        return costs.get("request_seconds", 1e-4)
    figures = loads[-1]["segments"]["0.5"]
    seconds = figures["server_cores"] / figures["per_second"]
    segments = costs["segments"]
    engine = 0.0
    for exit_, tokens in zip(costs["exits"], costs["tokens"], strict=True):
        engine += sum(sum(np.multiply(segments[place], (1, 1, tokens))) for place in range(exit_ + 1))
    return max(seconds - engine / len(costs["exits"]), 2e-5)


if __name__ == "__main__":
    main()
