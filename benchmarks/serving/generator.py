"""Open-loop and closed-loop load over HTTP, by a small program in C++ (`load.cpp`) that is compiled when needed.

Arrivals are a Poisson process with a fixed seed. A latency is counted from the scheduled arrival, also if the request
waited for a connection, so a server that stalls cannot hide the requests it kept waiting (coordinated omission). All
latencies are kept, so percentiles are exact. The program runs at the lowest real-time priority where that is allowed,
so that a busy server does not delay its clock; its processor time is part of the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import RUNS

SOURCE = Path(__file__).with_name("load.cpp")
CONNECTIONS = 512
PATIENCE = 10.0  # seconds that the last answers are awaited
_ROW = np.dtype([("scheduled", "f8"), ("sent", "f8"), ("done", "f8"), ("status", "i4"), ("length", "u4")])
PERCENTILES = (50, 90, 95, 99, 99.9)


@dataclass(frozen=True)
class Load:
    """The outcome of a load.

    Args:
        requests: (arrivals,) the request of each arrival.
        scheduled, sent, done: (arrivals,) float64 seconds from the start.
        status: (arrivals,) HTTP status; 0 if the connection broke, -1 without an answer.
        bodies: of the answers.
        wall: seconds of the whole run.
        processor: seconds of processor time of the load generator.
    """

    requests: np.ndarray
    scheduled: np.ndarray
    sent: np.ndarray
    done: np.ndarray
    status: np.ndarray
    bodies: list[bytes]
    wall: float
    processor: float

    def within(self, start: float, end: float) -> np.ndarray:
        """Returns which arrivals were scheduled in an interval: (arrivals,) bool."""
        return (self.scheduled >= start) & (self.scheduled < end)

    def latencies(self, which: np.ndarray | None = None) -> np.ndarray:
        """Returns the milliseconds from the scheduled arrival to the answer; infinite without an answer of status 200.

        Refused requests (429, 503) are left out.
        """
        refused = np.isin(self.status, (429, 503))
        chosen = ~refused if which is None else which & ~refused
        return np.where(self.status == 200, 1000 * (self.done - self.scheduled), np.inf)[chosen]

    def summary(self, start: float = 0.0, end: float = np.inf) -> dict[str, float]:
        """Returns counts, rates and percentiles of the latencies of the arrivals of an interval, in milliseconds."""
        which = self.within(start, end)
        latencies = np.sort(self.latencies(which))
        answered = which & (self.status == 200)
        seconds = min(end, float(self.scheduled[-1])) - start
        figures = {
            "arrivals": int(which.sum()),
            "answered": int(answered.sum()),
            "refused": int((which & np.isin(self.status, (429, 503))).sum()),
            "failed": int((which & ~np.isin(self.status, (200, 429, 503))).sum()),
            "per_second": round(float(answered.sum()) / seconds, 2),
            "generator_share": round(self.processor / self.wall, 4),  # of one core
            "sent_late_ms": round(float(np.percentile(1000 * (self.sent - self.scheduled)[which], 99)), 3),
        }
        for percent in PERCENTILES:
            figures[f"p{percent:g}"] = round(float(exact_percentile(latencies, percent)), 3)
        return figures


def exact_percentile(ordered: np.ndarray, percent: float) -> float:
    """Returns the smallest of the ordered values that `percent` of them do not exceed; NaN of none."""
    if not len(ordered):
        return float("nan")
    return float(ordered[max(0, int(np.ceil(percent / 100 * len(ordered))) - 1)])


def poisson(rate: float, seconds: float, requests: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the times of arrivals of a Poisson process, in seconds, and the request of each, drawn uniformly."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, size=int(rate * seconds + 10 * np.sqrt(rate * seconds) + 10))
    times = np.cumsum(gaps)
    times = times[times < seconds]
    return times, random.integers(0, requests, size=len(times))


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, seed: int = 0, connections: int = CONNECTIONS
) -> Load:
    """Sends Poisson arrivals.

    Args:
        port: of the server on this machine.
        requests: HTTP requests; each arrival draws one.
        rate: arrivals per second.
        seconds: duration.
        seed: of the arrivals.
        connections: at most so many are open.
    """
    times, chosen = poisson(rate, seconds, len(requests), seed)
    return send(port, requests, times, chosen, connections, "open", PATIENCE)


def closed_loop(port: int, requests: Sequence[bytes], clients: int, seconds: float, seed: int = 0) -> Load:
    """Sends requests in an order of a fixed seed; each of the clients sends its next one when it has an answer."""
    most = 200_000
    chosen = np.random.default_rng(seed).integers(0, len(requests), size=most)
    return send(port, requests, np.zeros(most), chosen, clients, "closed", seconds)


def send(
    port: int,
    requests: Sequence[bytes],
    times: np.ndarray,
    chosen: np.ndarray,
    connections: int,
    mode: str,
    seconds: float,
) -> Load:
    """Runs `load.cpp`; its first lines explain the arguments."""
    with tempfile.TemporaryDirectory() as folder:
        plan, result = Path(folder) / "plan", Path(folder) / "result"
        with plan.open("wb") as file:
            file.write(np.array([len(requests), len(times)], dtype="u4").tobytes())
            for request in requests:
                file.write(np.array([len(request)], dtype="u4").tobytes() + request)
            arrivals = np.empty(len(times), dtype=[("time", "f8"), ("request", "u4")])
            arrivals["time"], arrivals["request"] = times, chosen
            file.write(arrivals.tobytes())
        command = [str(program()), str(port), str(plan), str(result), str(connections), mode, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the load generator failed: {done.stderr}")
        about = json.loads(done.stdout)
        raw = result.read_bytes()
    count = about["arrivals"]
    rows = np.frombuffer(raw, dtype=_ROW, count=count)
    ends = np.cumsum(rows["length"], dtype=np.int64) + count * _ROW.itemsize
    bodies = [raw[end - length : end] for end, length in zip(ends.tolist(), rows["length"].tolist(), strict=True)]
    return Load(
        np.asarray(chosen[:count]),
        rows["scheduled"],
        rows["sent"],
        rows["done"],
        rows["status"],
        bodies,
        about["wall"],
        about["user"] + about["system"],
    )


def http_request(path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Returns the bytes of a POST request with a JSON body."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def program() -> Path:
    """Returns the compiled load generator; compiles it if its source has changed."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    path = RUNS / "serving" / f"load-{digest}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CXX") or "c++")
        subprocess.run([*compiler, "-O2", "-std=c++17", "-o", str(unfinished), str(SOURCE)], check=True)
        unfinished.rename(path)
    return path
