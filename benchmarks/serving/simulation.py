"""Discrete-event simulation of servers on many cores, fed by measured costs, and checked against measured loads.

    .venv-bench/bin/python benchmarks/serving/simulation.py --measure      # costs, on an idle machine
    .venv-bench/bin/python benchmarks/serving/simulation.py                # checks and predictions

A machine has event loops (HTTP, tokenization), each of which handles one request at a time, and engines. An engine is
one thread, or a team of threads that share one batch. With `segments`, a batch of new rows runs to its last exit, as
`runtime/dispatch.py` decides, if that takes at most `MAX_RUN_SECONDS`, unless regrouping its survivors saves more than
the steps of the scheduler cost; else one segment runs, survivors wait at their exit for others, and the rows that give
most answers per second run next, unless some have been passed over for `HOLD_SECONDS`. With `batches`, every batch runs
to its last exit. Costs of a segment are affine in rows and tokens. Event loops and engines have cores of their own, or
share some: then all slow down alike while more threads want to run than there are cores.
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
MAX_RUN_SECONDS = 0.05  # of a batch that runs to its last exit
STEP_SECONDS = 1.5e-4  # of the scheduler, per run of a segment
REQUEST_BYTES, ANSWER_BYTES = 500, 250  # with headers; a text of 200 characters
EVENTS = 10_000  # arrivals simulated
CORES = 2  # that the measured server and the load generator share
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

    def seconds(self, exit_index: int, rows: float, tokens: float, threads: int) -> float:
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
        shared: cores that all of them share; `None` if each thread has its own.
    """

    loops: int
    engines: int
    threads: int = 1
    is_continuous: bool = True
    shared: int | None = None

    @property
    def cores(self) -> int:
        """Cores of loops and engines."""
        return self.shared or self.loops + self.engines * self.threads

    def speed(self, loops: int, engines: int) -> float:
        """Returns the speed of every thread while so many loops and engines run, relative to a core of its own."""
        return 1.0 if self.shared is None else min(1.0, self.shared / max(loops + engines * self.threads, 1))


def simulate(costs: Costs, machine: Machine, rate: float, count: int = EVENTS, seed: int = 0) -> dict[str, float]:
    """Returns mean and percentiles of the latency in milliseconds, and busy shares of event loops and engines.

    Args:
        rate: requests per second, of one text each.
        count: arrivals; the first tenth is not counted.
        seed: of arrivals and texts.
    """
    times, texts = poisson(rate, count / rate, len(costs.exits), seed)
    exits, tokens = costs.exits[texts], costs.tokens[texts]
    scheduler = Scheduler(costs, machine, exits, tokens)
    done = np.full(len(times), np.nan)
    unread: list[deque[int]] = [deque() for _ in range(machine.loops)]  # the first of each is being read
    # Work that is being done, by the virtual time of its end. Virtual time runs at the speed of every thread.
    ends: list[tuple[float, int, int, Run | None]] = []  # time, order, loop, run of an engine
    now = virtual = busy = 0.0
    idle, order, arrived = machine.engines, 0, 0

    def begin(seconds: float, loop: int, run: Run | None = None) -> None:
        nonlocal order
        heapq.heappush(ends, (virtual + seconds, order, loop, run))
        order += 1

    while ends or arrived < len(times):
        reading = sum(map(bool, unread)) if machine.shared else 0
        speed = machine.speed(reading, machine.engines - idle)
        end = now + (ends[0][0] - virtual) / speed if ends else np.inf
        if arrived < len(times) and times[arrived] <= end:
            virtual += (times[arrived] - now) * speed
            now = float(times[arrived])
            queue = unread[arrived % machine.loops]
            queue.append(arrived)
            if len(queue) == 1:
                begin(costs.request, arrived % machine.loops)
            arrived += 1
            continue
        virtual, _, loop, run = heapq.heappop(ends)
        now = end
        if run is None:
            scheduler.queues[0].append(unread[loop].popleft())
            if unread[loop]:
                begin(costs.request, loop)
        else:
            left, following = scheduler.ended(run, now)
            done[left] = now
            if following is not None:
                busy += following.seconds
                begin(following.seconds, 0, following)
                continue
            idle += 1
        while idle and (chosen := scheduler.take(now)) is not None:
            busy += chosen.seconds
            idle -= 1
            begin(chosen.seconds, 0, chosen)
    latencies = np.sort(1000 * (done - times)[len(times) // 10 :])
    span = float(times[-1])
    return {
        **{f"p{percent:g}": round(exact_percentile(latencies, percent), 3) for percent in (50, 99, 99.9)},
        "mean": round(float(latencies.mean()), 3),
        "loop_share": round(len(times) * costs.request / span / machine.loops, 3),
        "engine_share": round(busy / span / machine.engines, 3),
    }


@dataclass(frozen=True)
class Run:
    """One run of a segment on an engine.

    Args:
        exit_index: that it ends at.
        rows: indices of requests.
        seconds: that it takes on threads with cores of their own.
        to_the_end: whether its survivors go on at once.
    """

    exit_index: int
    rows: list[int]
    seconds: float
    to_the_end: bool


class Scheduler:
    """Chooses the next run, as `runtime/dispatch.py` does.

    Args:
        exits, tokens: of each request.

    Attributes:
        queues: requests that wait, by the exit that they run to next.
    """

    def __init__(self, costs: Costs, machine: Machine, exits: np.ndarray, tokens: np.ndarray):
        self._costs, self._machine, self._exits, self._tokens = costs, machine, exits, tokens
        self.queues: list[deque[int]] = [deque() for _ in costs.segments]
        self._held_since = np.zeros(len(exits))  # when a row was put back
        self._mean_tokens = float(costs.tokens.mean())
        reaching = np.array([(costs.exits >= place).sum() for place in range(len(self.queues))])
        leaving = np.array([(costs.exits == place).sum() for place in range(len(self.queues))])
        self._share_leaving = (leaving / np.maximum(reaching, 1)).tolist()
        self._reaching = (reaching / len(costs.exits)).tolist()

    def take(self, now: float) -> Run | None:
        """Removes the rows that run next from their queue."""
        filled = [place for place, queue in enumerate(self.queues) if queue]
        if not filled:
            return None
        overdue = [place for place in filled if place and now - self._held_since[self.queues[place][0]] >= HOLD_SECONDS]
        if overdue:
            place = min(overdue, key=lambda each: (self.queues[each][0], -each))
        else:
            place = max(filled, key=lambda each: (self._rate(each), each))
        queue, rows, total = self.queues[place], [], 0
        while queue and len(rows) < BATCH_ROWS and (not rows or total + self._tokens[queue[0]] <= BATCH_TOKENS):
            total += self._tokens[queue[0]]
            rows.append(queue.popleft())
        return self._run(place, rows, not self._machine.is_continuous or self._goes_to_the_end(place, len(rows), total))

    def ended(self, run: Run, now: float) -> tuple[list[int], Run | None]:
        """Returns the rows that leave at the end of a run, and the run of the others if they go on at once."""
        left = [row for row in run.rows if self._exits[row] <= run.exit_index]
        stay = [row for row in run.rows if self._exits[row] > run.exit_index]
        if stay and run.to_the_end:
            return left, self._run(run.exit_index + 1, stay, True)
        if stay:
            self.queues[run.exit_index + 1].extend(stay)
            self._held_since[stay] = now
        return left, None

    def _run(self, place: int, rows: list[int], to_the_end: bool) -> Run:
        seconds = self._costs.seconds(place, len(rows), int(self._tokens[rows].sum()), self._machine.threads)
        return Run(place, rows, seconds, to_the_end)

    def _rate(self, place: int) -> float:
        """Returns the answers per second of the rows that wait at an exit."""
        rows = min(len(self.queues[place]), BATCH_ROWS)
        seconds = self._costs.seconds(place, rows, int(rows * self._mean_tokens), self._machine.threads)
        return rows * self._share_leaving[place] / seconds

    def _goes_to_the_end(self, place: int, rows: int, tokens: int) -> bool:
        if place:
            return False
        later = range(1, len(self.queues))
        seconds = sum(
            self._costs.seconds(each, rows * self._reaching[each], tokens * self._reaching[each], self._machine.threads)
            for each in range(len(self.queues))
        )
        if seconds > MAX_RUN_SECONDS:
            return False
        if len(self.queues[0]) + rows <= BATCH_ROWS and not any(self.queues[each] for each in later):
            return True  # no rows could join the survivors
        saved = sum(
            self._costs.segments[each][0] * max(1 - rows * self._reaching[each] / BATCH_ROWS, 0) - STEP_SECONDS
            for each in later
        )
        return saved <= 0


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


def check(costs: Costs, measured: dict[str, Any], cores: int) -> list[dict[str, float]]:
    """Returns measured and simulated latencies at the loads of `run.py`'s part `scheduling`.

    An event loop, and an engine of a team of threads, share the cores.
    """
    rows = []
    for kind, is_continuous in (("segments", True), ("batches", False)):
        for name, figures in measured.get(kind, {}).items():
            if name == "saturation":
                continue
            machine = Machine(1, 1, cores, is_continuous, cores)
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
    result["check"] = check(costs, loads[-1], CORES) if loads else []
    result["predictions"] = predict(costs)
    result["price"], result["bound_ms"] = PRICE, BOUND
    write_result(RESULT, {**result, **provenance()})
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
