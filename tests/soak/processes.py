"""Forks under load, interpreter exits under load, and threads that mix lengths and settings: `make soak`.

    python -m tests.soak.processes --forks 1000 --exits 200 --seconds 60 [--backends native torch]

Prints one line of counts for each, and ends with 1 if anything hung, crashed or answered otherwise than alone.
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
from itrex_sweet.config import Policy
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from tests.tiny_artifacts import WORDS, random_rows, tiny_artifact, tiny_tokenizer

HANGS_AFTER = 30  # seconds
EXITS = (1, 2, 4)


def model_in(folder: Path, backend: str) -> SweetModelForSequenceClassification:
    """The artifact in a folder; its native backend uses two threads for every call, however short."""
    model = SweetModelForSequenceClassification.from_pretrained(folder, backend=backend, threads=2)
    if backend == "native":
        model.backend = NativeBackend(model.artifact, threads=2, min_macs_per_thread=0)
        model.executor = Executor(model.backend, model.policy)
    return model


def texts(count: int, seed: int) -> list[str]:
    """Of one word to forty."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(count)]


# ---------------------------------------------------------------------------------------------------- forks


def forks(count: int, folder: Path, backend: str) -> Counter[str]:
    """Forks while other threads compute, and make and free models; every child answers, every fifth forks too."""
    model = model_in(folder, backend)
    rows = TokenBatch.from_rows(random_rows(np.random.default_rng(0), [1, 2, 33, 17, 5, 21, 8], first=5))
    expected = model.executor.logits_at_every_exit(rows)
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            model.executor.run(rows)

    def make_and_free() -> None:
        while not stop.is_set():
            model_in(folder, backend).executor.run(rows)

    # The tokenizer's locks are its own affair: with torch, no model is made meanwhile.
    load = [compute, compute, make_and_free] if backend == "native" else [compute, compute]
    threads = [threading.Thread(target=one) for one in load]
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
            same &= in_child(lambda: answer(depth - 1)) == "well"
            for helper in helpers:
                helper.join()
        return same

    results: Counter[str] = Counter()
    try:
        for place in range(count):
            time.sleep(random.random() * 0.004)
            results[in_child(lambda place=place: answer(int(place % 5 == 0)))] += 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return results


def in_child(job: Callable[[], bool]) -> str:
    """`"well"`, or what became of a child that does the job."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(HANGS_AFTER)
            status = 0 if job() else 2
        finally:
            os._exit(status)
    return outcome(os.waitpid(child, 0)[1])


def outcome(status: int) -> str:
    """Describes the end of a process."""
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return "hung" if name == "SIGALRM" else name
    return {0: "well", 2: "answered otherwise"}.get(os.WEXITSTATUS(status), f"status {os.WEXITSTATUS(status)}")


# ---------------------------------------------------------------------------------------------------- exits


def exits(count: int, folder: Path, backend: str, quick: bool = False) -> Counter[str]:
    """Ends interpreters while daemon threads predict. A child returns from here, and ends as its script does.

    Args:
        quick: whether what the parent has imported is left out of the garbage collection at the end, a second of it.
    """
    results: Counter[str] = Counter()
    model, given = model_in(folder, backend), texts(40, seed=0)
    calls = [lambda: model.predict(given)] * 2
    if backend == "native":  # its own calls need nobody to wait for them; those of torch do, and `predict` sees to it
        rows = model.read(given)
        calls.append(lambda: model.backend.answer(rows, model.policy))
    if quick:
        gc.collect()
        gc.freeze()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            faulthandler.disable()
            signal.alarm(HANGS_AFTER)
            for call in calls:
                threading.Thread(target=lambda call=call: [call() for _ in itertools.repeat(0)], daemon=True).start()
            time.sleep(0.02 + random.random() * 0.1)
            sys.exit(0)  # through the interpreter's end
        results[outcome(os.waitpid(child, 0)[1])] += 1
    return results


# ---------------------------------------------------------------------------------------------------- threads


def mixing(seconds: float, folder: Path, backend: str, count: int = 8) -> Counter[str]:
    """Threads that predict with lengths and settings of their own; answers are those of one thread alone."""
    models = [model_in(folder, backend), SweetModelForSequenceClassification.from_pretrained(folder, backend=backend)]
    alone = SweetModelForSequenceClassification.from_pretrained(folder, backend=backend, threads=1)
    settings = [
        dict(threshold=threshold, max_length=max_length, batch_size=batch_size)
        for threshold in (0.0, 0.4, 1.0)
        for max_length in (8, 16, 30)
        for batch_size in (1, 7, 32)
    ]
    given = [texts(12, seed) for seed in range(len(settings))]
    expected = [alone.predict(some, **how) for some, how in zip(given, settings, strict=True)]
    results: Counter[str] = Counter()
    until = time.monotonic() + seconds

    def work(seed: int) -> None:
        draw = random.Random(seed)
        while time.monotonic() < until:
            place = draw.randrange(len(settings))
            try:
                answers = draw.choice(models).predict(given[place], **settings[place])
            except Exception as error:
                results[repr(error)] += 1
                continue
            results["well" if same_answers(answers, expected[place], backend) else "answered otherwise"] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def same_answers(got: list[dict], expected: list[dict], backend: str) -> bool:
    """To the bit on the native engine."""
    if backend == "native":
        return got == expected
    scores = [[row.pop("score") for row in map(dict, answers)] for answers in (got, expected)]
    return np.allclose(*scores, atol=1e-5) and [row["label"] for row in got] == [row["label"] for row in expected]


# ---------------------------------------------------------------------------------------------------- the program


def artifact_in(folder: Path) -> Path:
    """A tiny artifact with a tokenizer, made if it is not there."""
    if not (folder / "config.json").is_file():
        tiny_artifact(folder, "bert", EXITS, tokenizer=tiny_tokenizer(), policy=Policy.uniform(len(EXITS), 0.4))
    open_artifact(folder)
    return folder


def main() -> None:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=1000)
    parser.add_argument("--exits", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0, help="of threads that mix lengths and settings")
    parser.add_argument("--backends", nargs="+", default=["native", "torch"])
    parser.add_argument("--folder", type=Path, help="of the artifact (default: a temporary one)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # texts are cut on purpose
    folder = artifact_in(options.folder or Path(tempfile.mkdtemp(prefix="itrex-sweet-soak-")))
    went_well = True
    for backend in options.backends:
        # Exits first: their children are forked from a process that has computed nothing yet.
        for task, amount in ((exits, options.exits), (forks, options.forks), (mixing, options.seconds)):
            start = time.monotonic()
            results = task(amount, folder, backend) if amount else Counter()
            print(f"{task.__name__} {backend}: {dict(results)} in {time.monotonic() - start:.0f} s", flush=True)
            went_well &= set(results) <= {"well"}
    sys.exit(0 if went_well else 1)


if __name__ == "__main__":
    main()
