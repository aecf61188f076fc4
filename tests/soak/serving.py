"""Soak test of `itrex-sweet serve`: clients that leave, slow clients and reloads under load: `make soak-serve`.

    python -m tests.soak.serving --minutes 60 [--artifact DIR] [--load 0.8 | --rate 200]

Every answer is compared with that of `predict`, and counted: a request without an answer is lost, and bytes after an
answer are doubled. Prints one line a minute, and at the end counts and the slope of the server's resident memory. The
exit status is 1 if an answer was lost, doubled or different, or the memory grew by more than `--max-slope`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import itrex_sweet
from tests.soak.processes import texts as random_texts
from tests.tiny_artifacts import tiny_artifact, tiny_tokenizer

PATIENCE = 30.0  # seconds until a request counts as lost, by default
KINDS = {"plain": 0.9, "leaving": 0.06, "slow": 0.04}  # shares of clients
SLOW_SECONDS = 2.0  # in which a slow client sends its request
RELOAD_SECONDS = 20.0
TEXTS = 500
TRIAL_SECONDS = 5.0
MAX_CLIENTS = 300


class Soak:
    """Clients of one server, and what they counted.

    Args:
        port: of the server.
        texts: to classify.
        expected: `predict`'s answers.
        patience: seconds until a request counts as lost.
        seed: of the choices.
    """

    def __init__(
        self, port: int, texts: Sequence[str], expected: Sequence[dict], patience: float = PATIENCE, seed: int = 0
    ):
        self._patience = patience
        self.port, self.texts, self.expected = port, texts, expected
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self._draw = random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(self, kind: str) -> None:
        """Sends one request, of one to four texts, as a client of a kind."""
        rows = [self._draw.randrange(len(self.texts)) for _ in range(self._draw.choice((1, 1, 1, 2, 4)))]
        body = json.dumps({"inputs": [[self.texts[row]] for row in rows]}).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: soak\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self.counts[kind] += 1
        start = time.perf_counter()
        reader, writer = await self._connection(fresh=kind != "plain")
        try:
            if kind == "slow":
                message = head + body
                pieces = [
                    message[place : place + 1 + len(message) // 10]
                    for place in range(0, len(message), 1 + len(message) // 10)
                ]
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(SLOW_SECONDS / len(pieces))
            elif kind == "leaving":
                writer.write((head + body)[: self._draw.randrange(1, len(head) + len(body) + 1)])
                await asyncio.sleep(self._draw.random() * 0.02)
                writer.transport.abort()
                return
            else:
                writer.write(head + body)
            status, answer = await asyncio.wait_for(_answer(reader), self._patience)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, ValueError) as error:
            self.counts["lost"] += 1
            print(f"lost, {kind}: {type(error).__name__}: {error}", file=sys.stderr)
            writer.transport.abort()
            return
        if status == 429:
            self.counts["refused"] += 1
        elif status == 408 and kind == "slow":
            self.counts["too slow"] += 1
        elif status != 200:
            self.counts["failed"] += 1
            print(f"status {status}: {answer[:200]!r}", file=sys.stderr)
        else:
            self._compare(rows, json.loads(answer))
            if kind == "plain":
                self.latencies.append(time.perf_counter() - start)
        if reader._buffer:  # a second answer
            self.counts["doubled"] += 1
        elif kind == "plain":
            self._idle.append((reader, writer))
            return
        writer.transport.abort()

    def _compare(self, rows: list[int], answers: list[list[dict]]) -> None:
        self.counts["answered"] += 1
        same = len(rows) == len(answers)
        for row, answer in zip(rows, answers, strict=False):
            best = max(answer, key=lambda each: each["score"])
            wanted = self.expected[row]
            same = (
                same and best["label"] == wanted["label"] and np.float32(best["score"]) == np.float32(wanted["score"])
            )
        self.counts["different"] += not same

    async def _connection(self, fresh: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle and not fresh:
            reader, writer = self._idle.pop()
            if not (reader._buffer or reader.at_eof() or writer.is_closing()):
                return reader, writer
            self.counts["doubled"] += bool(reader._buffer)
            writer.transport.abort()
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def run(
        self, seconds: float, rate: float, server: subprocess.Popen, say: bool = True
    ) -> list[tuple[float, float]]:
        """Sends Poisson arrivals and reloads; returns (seconds, resident MB) of the server, once a second."""
        memory: list[tuple[float, float]] = []
        tasks: set[asyncio.Task] = set()
        start = next_ = time.monotonic()
        reloaded = said = sampled = start
        while (now := time.monotonic()) - start < seconds:
            while next_ <= now:
                if len(tasks) < MAX_CLIENTS:
                    kind = self._draw.choices(list(KINDS), list(KINDS.values()))[0] if say else "plain"
                    task = asyncio.create_task(self.one(kind))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                else:
                    self.counts["not sent"] += 1
                next_ += self._draw.expovariate(rate)
            if now - sampled > 1:
                sampled = now
                memory.append((now - start, resident_mb(server.pid)))
            if say and now - reloaded > RELOAD_SECONDS:
                reloaded = now
                server.send_signal(signal.SIGHUP)
                self.counts["reloads"] += 1
            if say and now - said > 60:
                said = now
                print(f"{(now - start) / 60:.0f} min, {memory[-1][1]:.1f} MB, {dict(self.counts)}", flush=True)
            await asyncio.sleep(max(0.0, min(next_ - time.monotonic(), 0.2)))
        while tasks:
            await asyncio.wait(tasks, timeout=1)
        return memory

    async def capacity(self, server: subprocess.Popen) -> float:
        """Returns requests per second of 32 clients that wait for their answers."""
        end = time.monotonic() + TRIAL_SECONDS
        before = self.counts["answered"]

        async def client() -> None:
            while time.monotonic() < end:
                await self.one("plain")

        await asyncio.gather(*(client() for _ in range(32)))
        return (self.counts["answered"] - before) / TRIAL_SECONDS


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


def resident_mb(pid: int) -> float:
    """Returns the resident memory of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(memory: Sequence[tuple[float, float]]) -> float:
    """Returns the growth of the memory after the first minute, by least squares, in MB per hour."""
    later = np.array([each for each in memory if each[0] > 60] or memory)
    return 3600 * float(np.polyfit(later[:, 0], later[:, 1], 1)[0])


def start(artifact: Path, port: int, threads: int) -> subprocess.Popen:
    """Starts a server and waits until it is ready."""
    command = [sys.executable, "-m", "itrex_sweet.cli", "serve", f"model={artifact}", "--port", str(port)]
    server = subprocess.Popen([*command, "--hostname", "127.0.0.1", "--threads", str(threads)])
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return server
        except OSError:
            time.sleep(0.2)
    server.kill()
    raise SystemExit("the server did not start.")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--artifact", type=Path, help="by default a tiny model")
    parser.add_argument("--texts", type=Path, help="file with one text per line, by default random words")
    parser.add_argument("--load", type=float, default=0.8, help="share of the capacity, which is measured first")
    parser.add_argument("--rate", type=float, help="requests per second, in place of --load")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds until a request counts as lost")
    parser.add_argument("--max-slope", type=float, default=20.0, help="MB per hour")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="itrex-sweet-soak-") as folder:
        artifact = options.artifact
        if artifact is None:
            artifact = Path(folder) / "artifact"
            tiny_artifact(artifact, tokenizer=tiny_tokenizer())
        texts = (
            options.texts.read_text(encoding="utf-8").splitlines()[:TEXTS] if options.texts else random_texts(TEXTS, 0)
        )
        expected = itrex_sweet.load(artifact, threads=options.threads).predict(texts)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = start(artifact, port, options.threads)
        try:
            outcome = asyncio.run(_soak(Soak(port, texts, expected, options.patience), server, options))
        finally:
            server.terminate()
            status = server.wait(60)
    outcome["exit status of the server"] = status
    print(json.dumps(outcome))
    bad = outcome["lost"] or outcome["doubled"] or outcome["different"] or outcome["failed"] or status
    return int(bool(bad) or outcome["slope_mb_per_hour"] > options.max_slope)


async def _soak(soak: Soak, server: subprocess.Popen, options: argparse.Namespace) -> dict[str, float]:
    rate = options.rate or options.load * await soak.capacity(server)
    memory = await soak.run(60 * options.minutes, rate, server)
    counts = soak.counts
    first = [value for second, value in memory if second > 60] or [value for _, value in memory]
    return {
        "minutes": options.minutes,
        "rate": round(rate, 1),
        **{
            name: counts[name]
            for name in (
                "answered",
                "lost",
                "doubled",
                "different",
                "refused",
                "too slow",
                "failed",
                "not sent",
                "reloads",
            )
        },
        "left": counts["leaving"],
        "slow": counts["slow"],
        "p50_ms": round(1000 * float(np.median(soak.latencies)), 2),
        "p99_ms": round(1000 * float(np.percentile(soak.latencies, 99)), 2),
        "memory_first_mb": round(first[0], 1),
        "memory_last_mb": round(memory[-1][1], 1),
        "slope_mb_per_hour": round(slope(memory), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
