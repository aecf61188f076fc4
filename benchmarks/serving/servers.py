"""Server processes: how each is started, when it is ready, and what processor time and memory it has used."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from record import ROOT

READY_SECONDS = 180.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server's command.

    Args:
        title: in tables.
        dialect: in `workloads.DIALECTS`.
        command: arguments; `{port}` is replaced.
        environment: more variables.
        health: the route that answers 200 when it is ready.
        directory: to start it in.
        processes: that answer on its port.
    """

    title: str
    dialect: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    directory: Path | None = None
    processes: int = 1


class Running:
    """A started server, stopped at the end of a `with` block.

    Args:
        server: what to start.
        log: file for its output.
        priority: niceness.
    """

    def __init__(self, server: Server, log: Path):
        self.server, self._log = server, log
        self.port = free_port()

    def __enter__(self) -> Running:
        command = [each.replace("{port}", str(self.port)) for each in self.server.command]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.server.environment},
                cwd=self.server.directory,
                preexec_fn=os.setpgrp,
            )
        return self

    def wait_until_ready(self) -> None:
        """Waits until the health route answers, and until several processes have all been loaded.

        Raises:
            RuntimeError: the process ended, or took too long; with its output.
        """
        end = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{self.server.title} did not start; its output:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)
        if self.server.processes > 1:
            self._wait_until_idle()

    def _wait_until_idle(self) -> None:
        """Waits until the processes compute nothing: others than the one that answered may still be loading.

        Raises:
            RuntimeError: they still compute after `READY_SECONDS`.
        """
        end, before = time.monotonic() + READY_SECONDS, self.processor_seconds()
        while time.monotonic() < end:
            time.sleep(1.0)
            now = self.processor_seconds()
            if now - before < 0.02:
                return
            before = now
        self.stop()
        raise RuntimeError(f"{self.server.title} is not idle after it was started.")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_ready(self) -> bool:
        """Returns whether the health route answers 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.server.health}", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self) -> None:
        """Stops the process and its children."""
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        except ProcessLookupError:
            pass

    def processor_seconds(self) -> float:
        """Returns the processor time of the server's processes so far."""
        total = 0.0
        for pid in self._pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            total += (int(fields[11]) + int(fields[12])) / TICKS
        return total

    def memory(self) -> int:
        """Returns the resident bytes of the server's processes."""
        pages = 0
        for pid in self._pids():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _pids(self) -> list[int]:
        """Returns the processes of the server's group."""
        pids = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[2]) == self.process.pid:
                pids.append(int(path.parent.name))
        return pids


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def sweet(artifact: Path, title: str = "itrex-sweet", threads: int = 2, options: Sequence[str] = ()) -> Server:
    """Returns `itrex-sweet serve` of an artifact."""
    command = [sys.executable, "-m", "itrex_sweet.cli", "serve", str(artifact), "--port", "{port}"]
    command += ["--threads", str(threads), *options]
    return Server(title, "tei", command, {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])})


def replicated(server: Server, count: int) -> Server:
    """Returns several processes of a server, whose options let others listen on its port."""
    command = shlex.join(server.command)
    script = " ".join([*[f"{command} &"] * count, "wait"])
    return replace(server, title=f"{server.title}, {count} processes", command=["sh", "-c", script], processes=count)


def infinity(python: Path, model: Path, engine: str = "optimum", threads: int = 2, batch: int = 32) -> Server:
    """Returns Infinity's server.

    Args:
        python: the interpreter of an environment with `infinity-emb[server,optimum,torch]`.
        model: folder with the model and, for `optimum`, `model_quantized.onnx`.
        engine: `optimum` (ONNX Runtime) or `torch`.
        threads: of the engine.
        batch: rows at most.
    """
    # "." in that folder: its engine `optimum` finds files of a local model by their relative names only.
    # Without its warm-up, whose text is longer than the model allows.
    command = [str(python.with_name("infinity_emb")), "v2", "--model-id", ".", "--served-model-name", "model"]
    command += [
        "--engine",
        engine,
        "--device",
        "cpu",
        "--port",
        "{port}",
        "--batch-size",
        str(batch),
        "--no-bettertransformer",
    ]
    command += ["--log-level", "error", "--no-model-warmup"]
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONPATH": ""}
    return Server(f"Infinity ({engine})", "infinity", command, environment, directory=model)


def batching(
    engine: str,
    model: Path,
    tokenizer: Path,
    labels: Sequence[str],
    threads: int = 2,
    processes: int = 1,
    **settings: object,
) -> Server:
    """Returns the FastAPI server of `batching_app.py`.

    Args:
        engine: `onnxruntime` or `openvino`.
        model: the converted file.
        tokenizer: `tokenizer.json`.
        labels: names by id.
        threads: of the engine, in each process.
        processes: on the port.
        settings: further variables: `batch`, `wait_ms`, `max_length`, `multiple`.
    """
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parent), "--port", "{port}"]
    command += [
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "warning",
        "batching_app:app",
    ]
    if processes > 1:
        command += ["--workers", str(processes)]
        settings["pinning"] = "NO"
    environment = {
        "ENGINE": engine,
        "MODEL": str(model),
        "TOKENIZER": str(tokenizer),
        "LABELS": json.dumps(list(labels)),
    }
    environment |= {"THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    environment |= {name.upper(): str(value) for name, value in settings.items()}
    titles = {"onnxruntime": "FastAPI + ONNX Runtime", "openvino": "FastAPI + OpenVINO"}
    title = titles[engine] if processes == 1 else f"{titles[engine]}, {processes} processes"
    return Server(title, "plain", command, environment, processes=processes)
