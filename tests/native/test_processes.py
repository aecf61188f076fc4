"""Forks, interpreter exits and threads under load; `make soak` runs many more iterations."""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import pickle
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.native import library
from tests.soak import processes

pytestmark = [
    pytest.mark.skipif(all(library.available().values()), reason="the native engine was not built"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
]

COUNTS = {("exits", "native"): 10, ("exits", "torch"): 3, ("forks", "native"): 20, ("forks", "torch"): 3}

# Exits first, from a process that has computed nothing. Before the forks, torch starts threads, which children lack.
SCRIPT = """
import json, logging, sys, torch
from pathlib import Path
from tests.soak import processes
logging.disable(logging.WARNING)
torch.set_num_threads(2)
for task, backend, count in json.loads(sys.argv[2]):
    if task == "forks":
        large = torch.randn(1500, 1500)
        (large @ large).softmax(1)
    more = {"quick": True} if task == "exits" else {}
    results = getattr(processes, task)(count, Path(sys.argv[1]), backend, **more)
    print(json.dumps([task, backend, results]), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return processes.artifact_in(tmp_path_factory.mktemp("processes") / "model")


@pytest.fixture(scope="module")
def results(folder):
    """Returns (task, backend) → counts of outcomes; all in one interpreter, whose start takes seconds."""
    tasks = [[*key, count] for key, count in COUNTS.items()]
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, json.dumps(tasks)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert finished.returncode == 0, finished.stderr
    return {(task, backend): ended for task, backend, ended in map(json.loads, finished.stdout.splitlines())}


@pytest.mark.parametrize(("task", "backend"), COUNTS)
def test_processes_end_without_crash_hang_or_wrong_answer(results, task, backend):
    assert results[task, backend] == {"ok": COUNTS[task, backend]}


def test_threads_with_different_settings_answer_like_one_thread(folder):
    assert set(processes.mixed_settings(1.0, folder, "native")) == {"ok"}


# ---------------------------------------------------------------------------------------------------- lifetime


def test_packed_model_is_freed_after_its_last_user(folder):
    model = SweetModelForSequenceClassification.from_pretrained(folder, backend="native")
    batch, policy = model.read(["good phone"]), model.policy
    answer, packed = model.backend.answer, model.backend._model
    expected = answer(batch, policy).logits
    copies = [copy.copy(packed), copy.deepcopy(packed)]
    del model, packed
    gc.collect()
    np.testing.assert_array_equal(answer(batch, policy).logits, expected)
    del answer
    while copies:
        gc.collect()
        assert copies.pop().call("sweet_model_bytes") > 0


def test_packed_model_cannot_be_pickled(folder):
    backend = SweetModelForSequenceClassification.from_pretrained(folder, backend="native").backend
    with pytest.raises(BackendUnavailable, match="cannot be pickled"):
        pickle.dumps(backend._model)


# ---------------------------------------------------------------------------------------------------- thread starts


def threads_of_this_process() -> set[int]:
    """Returns the ids of the threads."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def process_status(name: str) -> int:
    """Returns a number from `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="uses the limits of Linux")
def test_calls_succeed_if_threads_cannot_be_started(folder, tmp_path):
    model = processes.model_in(folder, "native")
    batch, policy = model.read(["good phone", "bad soup"]), model.policy
    expected = model.backend.answer(batch, policy).logits
    log = tmp_path / "log"

    def job() -> bool:
        logging.getLogger("itrex_sweet").addHandler(logging.FileHandler(log))
        backend = NativeBackend(model.artifact, threads=2, min_macs_per_thread=0)
        for _ in range(16):  # use up the thread stacks that the C library caches
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        initial, before = process_status("Threads"), resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (process_status("VmSize") * 1024 + 2**20, before[1])
        )  # less than a thread's stack
        same = all((backend.answer(batch, policy).logits == expected).all() for _ in range(3))
        same &= process_status("Threads") == initial
        resource.setrlimit(resource.RLIMIT_AS, before)
        same &= all((backend.answer(batch, policy).logits == expected).all() for _ in range(200))
        return same and process_status("Threads") == initial + 1  # started once the limit is lifted

    assert processes.in_child(job) == "ok"
    assert log.read_text().count("refused to start a thread") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="uses the affinities of Linux")
@pytest.mark.parametrize("is_expected", [False, True])
@pytest.mark.parametrize("pinned", [False, True])
def test_worker_affinity_is_restored_after_waking(folder, pinned, is_expected):
    def job() -> bool:
        model, initial = processes.model_in(folder, "native"), threads_of_this_process()
        batch = model.read(["good phone", "bad soup"])
        model.backend.answer(batch, model.policy)
        (worker,) = threads_of_this_process() - initial
        allowed = os.sched_getaffinity(worker)
        if pinned:
            allowed = {max(allowed)}
            os.sched_setaffinity(worker, allowed)
        for _ in range(20):
            time.sleep(0.005)  # the worker sleeps
            if is_expected:
                model.backend.expect_call()
                if os.sched_getaffinity(worker) != allowed:
                    return False
            model.backend.answer(batch, model.policy)
            if os.sched_getaffinity(worker) != allowed:
                return False
        return True

    assert processes.in_child(job) == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="reads counts of Linux")
def test_an_expected_call_wakes_the_workers_of_the_last_one(folder):
    def sleeps(worker: int) -> int:
        """Returns how often a thread has gone to sleep, once it sleeps."""
        before = None
        while before != (before := voluntary_switches(worker)):
            time.sleep(0.1)
        return before

    def voluntary_switches(worker: int) -> int:
        lines = Path(f"/proc/self/task/{worker}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("voluntary")).split()[1])

    def job() -> bool:
        model, initial = processes.model_in(folder, "native"), threads_of_this_process()
        model.backend.expect_call()  # no thread has been started
        if threads_of_this_process() != initial:
            return False
        batch, end = model.read(["good phone", "bad soup"]), time.monotonic() + 20
        while time.monotonic() < end:  # on a busy machine the last job may have had one thread
            model.backend.answer(batch, model.policy)
            (worker,) = threads_of_this_process() - initial
            before = sleeps(worker)
            model.backend.expect_call()
            if sleeps(worker) > before:
                return True
        return False

    assert processes.in_child(job) == "ok"


@pytest.mark.parametrize("threads", [0, -1, True, 2.5, "2", 100_000])
@pytest.mark.parametrize("backend", ["native", "torch", "auto"])
def test_invalid_number_of_threads_raises_on_every_backend(folder, backend, threads):
    with pytest.raises(ConfigError, match=f"threads={threads!r}"):
        SweetModelForSequenceClassification.from_pretrained(folder, backend=backend, threads=threads)


def test_threads_wake_before_texts_are_tokenized(folder, monkeypatch):
    model, seen = processes.model_in(folder, "native"), []
    read = model._read
    monkeypatch.setattr(model.backend, "expect_call", lambda: seen.append("expected"))
    monkeypatch.setattr(model, "_read", lambda *arguments: seen.append("read") or read(*arguments))
    model.predict(["good phone"])
    assert seen == ["expected", "read"]
