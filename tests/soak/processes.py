"""Stress test of forks, interpreter exits and threads with mixed settings: `make soak`.

    python -m tests.soak.processes --forks 1000 --exits 200 --seconds 60 [--backends native torch]

Prints one line of counts for each. The exit status is 1 if anything hung, crashed or gave a wrong answer.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import itertools
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import open_artifact
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import WORDS, random_rows, tiny_artifact, tiny_tokenizer

TIMEOUT = 30  # seconds
EXITS = (1, 2, 4)


def model_in(folder: Path, backend: str) -> SweetModelForSequenceClassification:
    """Loads an artifact; its native backend uses two threads for every call, regardless of size."""
    model = SweetModelForSequenceClassification.from_pretrained(folder, backend=backend, threads=2)
    if backend == "native":
        model.backend = NativeBackend(model.artifact, threads=2, min_macs_per_thread=0)
        model.executor = Executor(model.backend, model.policy)
    return model


def texts(count: int, seed: int) -> list[str]:
    """Returns random texts of 1 to 40 words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(count)]


# ---------------------------------------------------------------------------------------------------- forks


def forks(count: int, folder: Path, backend: str) -> Counter[str]:
    """Forks while other threads run, create and free models. Every child predicts; every fifth forks again."""
    model = model_in(folder, backend)
    rows = TokenBatch.from_rows(random_rows(np.random.default_rng(0), [1, 2, 33, 17, 5, 21, 8], first=5))
    expected = model.executor.logits_at_every_exit(rows)
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            model.executor.run(rows)

    def create_and_free() -> None:
        while not stop.is_set():
            model_in(folder, backend).executor.run(rows)

    # With torch, no models are created meanwhile: a fork may happen while the tokenizer holds its locks.
    load = [compute, compute, create_and_free] if backend == "native" else [compute, compute]
    threads = [threading.Thread(target=function) for function in load]
    for thread in threads:
        thread.start()

    def answer(depth: int) -> bool:
        same = np.allclose(model.executor.logits_at_every_exit(rows), expected, atol=1e-5)
        if backend == "native":
            same &= np.array_equal(model.executor.logits_at_every_exit(rows), expected)
        if depth:
            helpers = [threading.Thread(target=model.executor.run, args=(rows,)) for _ in range(2)]
            for helper in helpers:
                helper.start()
            same &= in_child(lambda: answer(depth - 1)) == "ok"
            for helper in helpers:
                helper.join()
        return same

    results: Counter[str] = Counter()
    try:
        for index in range(count):
            time.sleep(random.random() * 0.004)
            results[in_child(lambda index=index: answer(int(index % 5 == 0)))] += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return results


def in_child(job: Callable[[], bool]) -> str:
    """Runs a job in a forked child; returns `"ok"` or a description of the failure."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(TIMEOUT)
            status = 0 if job() else 2
        finally:
            os._exit(status)
    return outcome(os.waitpid(child, 0)[1])


def outcome(status: int) -> str:
    """Returns a description of an exit status."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return "hung" if name == "SIGALRM" else name
    return {0: "ok", 2: "wrong answer"}.get(os.WEXITSTATUS(status), f"status {os.WEXITSTATUS(status)}")


# ---------------------------------------------------------------------------------------------------- exits


def exits(count: int, folder: Path, backend: str, quick: bool = False) -> Counter[str]:
    """Ends interpreters while daemon threads predict. A child exits through the normal end of the interpreter.

    Args:
        quick: exclude the parent's objects from garbage collection, which saves a second per exit.
    """
    results: Counter[str] = Counter()
    model, given = model_in(folder, backend), texts(40, seed=0)
    calls = [lambda: model.predict(given)] * 2
    if backend == "native":  # direct calls need no synchronization with the exit, unlike those of torch in `predict`
        rows = model.read(given)
        calls.append(lambda: model.backend.answer(rows, model.policy))
    if quick:
        gc.collect()
        gc.freeze()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            faulthandler.disable()
            signal.alarm(TIMEOUT)
            for call in calls:
                threading.Thread(target=lambda call=call: [call() for _ in itertools.repeat(0)], daemon=True).start()
            time.sleep(0.02 + random.random() * 0.1)
            sys.exit(0)  # the normal end of the interpreter
        results[outcome(os.waitpid(child, 0)[1])] += 1
    return results


# ---------------------------------------------------------------------------------------------------- threads


def mixed_settings(seconds: float, folder: Path, backend: str, count: int = 8) -> Counter[str]:
    """Predicts from several threads with different lengths and settings; results must equal those of one thread."""
    models = [model_in(folder, backend), SweetModelForSequenceClassification.from_pretrained(folder, backend=backend)]
    reference = SweetModelForSequenceClassification.from_pretrained(folder, backend=backend, threads=1)
    settings = [
        dict(threshold=threshold, max_length=max_length, batch_size=batch_size)
        for threshold in (0.0, 0.4, 1.0)
        for max_length in (8, 16, 30)
        for batch_size in (1, 7, 32)
    ]
    given = [texts(12, seed) for seed in range(len(settings))]
    expected = [reference.predict(batch, **options) for batch, options in zip(given, settings, strict=True)]
    results: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def work(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < until:
            index = draw.randrange(len(settings))
            try:
                answers = draw.choice(models).predict(given[index], **settings[index])
            except Exception as error:
                results[repr(error)] += 1
                continue
            results["ok" if same_answers(answers, expected[index], backend) else "wrong answer"] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def same_answers(got: list[dict], expected: list[dict], backend: str) -> bool:
    """Compares predictions; bit-identical on the native engine."""
    if backend == "native":
        return got == expected
    scores = [[row.pop("score") for row in map(dict, answers)] for answers in (got, expected)]
    return np.allclose(*scores, atol=1e-5) and [row["label"] for row in got] == [row["label"] for row in expected]


# ---------------------------------------------------------------------------------------------------- the program


def artifact_in(folder: Path) -> Path:
    """Returns the folder of a tiny artifact with a tokenizer; creates it if missing."""
    if not (folder / "config.json").is_file():
        tiny_artifact(folder, "bert", EXITS, tokenizer=tiny_tokenizer(), policy=Policy.uniform(len(EXITS), 0.4))
    open_artifact(folder)
    return folder


def main() -> None:
    """Runs the stress tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--exits", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the test with threads")
    parser.add_argument("--backends", nargs="+", default=["native", "torch"])
    parser.add_argument("--folder", type=Path, help="folder of the artifact (default: a temporary one)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # truncation of texts is intended
    folder = artifact_in(options.folder or Path(tempfile.mkdtemp(prefix="itrex-sweet-soak-")))
    succeeded = True
    for backend in options.backends:
        # Exits first: their children are forked from a process that has computed nothing yet.
        for task, amount in ((exits, options.exits), (forks, options.forks), (mixed_settings, options.seconds)):
            start = time.monotonic()
            results = task(amount, folder, backend) if amount else Counter()
            print(f"{task.__name__} {backend}: {dict(results)} in {time.monotonic() - start:.0f} s", flush=True)
            succeeded &= set(results) <= {"ok"}
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
