"""Kills writers of an artifact at random times, with a reader running: `make soak-kills COUNT=300`.

In each round, a process saves, calibrates or quantizes repeatedly into the same folder and receives SIGKILL at a random
time; in half of the rounds while the new folder replaces the old one. After each kill the folder must contain one
consistent artifact: labels, weights and guarantee of the same model. Foreign files must be preserved, or recoverable.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: children are forked

import numpy as np
import torch
import transformers

from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.artifact import Artifact, open_artifact, staging, write_artifact
from itrex_sweet.artifact.staging import require_writable
from itrex_sweet.calibration.budget import Budget
from itrex_sweet.calibration.calibrate import calibrate
from itrex_sweet.data import Rows
from itrex_sweet.quantization import quantizer
from tests.quantization.hook_observer import observe_with_hooks
from tests.tiny_artifacts import WORDS, model_and_tensors, tiny_tokenizer

NAMES = ("one", "two")
FOREIGN = {"notes.txt": b"mine", "checkpoint-5/optimizer.pt": b"state"}
Work = Callable[[Path, Path, int], None]


def make_models(folder: Path) -> None:
    """Creates two models, which differ in a label and in all weights."""
    for seed, name in enumerate(NAMES):
        _, config, tensors = model_and_tensors("bert", (1, 2), num_labels=2, seed=seed)
        config.id2label, config.label2id = {0: name, 1: "other"}, {name: 0, "other": 1}
        write_artifact(folder / name, config=config, tensors=tensors, tokenizer=tiny_tokenizer())


def texts(count: int, seed: int = 0) -> list[str]:
    """Returns distinct random texts."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(4, 12))) for _ in range(count)]


def save(models: Path, target: Path, round_: int) -> None:
    """Saves both models alternately, each a second time with another policy."""
    for turn in itertools.count(round_):
        artifact = open_artifact(models / NAMES[turn % 2])
        config = artifact.model_config()
        config.architectures = artifact.config["architectures"]
        write_artifact(target, config=config, tensors=artifact.tensors(), tokenizer=tiny_tokenizer())
        model = SweetModelForSequenceClassification.from_pretrained(target, backend="torch")
        model.policy = model.policy.with_threshold(0.5)
        model.save_pretrained(target)


def calibrate_in_place(models: Path, target: Path, round_: int) -> None:
    """Calibrates in place, on rows whose source contains the name of the model."""
    for turn in itertools.count(round_):
        name = NAMES[turn % 2]
        SweetModelForSequenceClassification.from_pretrained(models / name, backend="torch").save_pretrained(target)
        model = SweetModelForSequenceClassification.from_pretrained(target, backend="torch")
        rows = Rows(texts(220), np.random.default_rng(turn).integers(0, 2, 220).tolist(), source=f"{name}.csv")
        calibrate(model, rows, Budget(max_layers=2.0), unit="layers").write(model.artifact)


def quantize(models: Path, target: Path, round_: int) -> None:
    """Quantizes both models alternately into the same folder."""
    for turn in itertools.count(round_):
        model = SweetQuantizer.from_pretrained(models / NAMES[turn % 2])
        model.quantize(texts(160), target, "static", rows=40, max_drop=1.0, max_moved=1.0)


WORKS: dict[str, Work] = {"save": save, "calibrate": calibrate_in_place, "quantize": quantize}


def state(artifact: Artifact) -> tuple[str, str, float]:
    """Returns label, precision and sum of the weights of an artifact.

    Raises:
        AssertionError: its guarantee belongs to another model.
    """
    name = artifact.label_names[0]
    source = artifact.calibration.get("source")
    assert source in (None, f"{name}.csv"), f"the guarantee of {source} in the model {name}"
    total = sum(float(value.double().abs().sum()) for value in artifact.tensors().values())
    return name, artifact.precision, total


class ConsistencyCheck:
    """Checks that each label and precision always comes with the same weights."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, str], float] = {}

    def check(self, target: Path) -> None:
        """Opens the folder.

        Raises:
            AssertionError: it contains parts of two models.
        """
        name, precision, total = state(open_artifact(target))
        expected = self.totals.setdefault((name, precision), total)
        assert expected == total, f"weights of another model under the label {name}"


def read_continuously(target: Path, stop: Any, reads: Any, failures: Any) -> None:
    """Opens the folder repeatedly until `stop` is set."""
    seen = ConsistencyCheck()
    while not stop.is_set():
        try:
            seen.check(target)
        except Exception as error:
            failures.put(f"reader: {error!r}")
        with reads.get_lock():
            reads.value += 1


def notify_before_commit(descriptor: int) -> None:
    """Makes a writer send a byte when a new folder is complete and about to replace the target."""
    commit = staging._Staging.commit

    def notify_and_commit(self: staging._Staging, *arguments: Any) -> None:
        os.write(descriptor, b"w")
        commit(self, *arguments)

    staging._Staging.commit = notify_and_commit


def kill_once(work: Callable[[], None], chance: random.Random, longest: float) -> None:
    """Starts a writer and kills it during a commit or at any time."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            notify_before_commit(writing)
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(1)
    os.close(writing)
    if chance.random() < 0.5:
        for _ in range(chance.randint(1, 3)):
            os.read(reading, 1)
        time.sleep(chance.uniform(0, 0.06))
    else:
        time.sleep(chance.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer failed before the kill"


def lost_files(target: Path) -> list[str]:
    """Returns the foreign files that are neither in the folder nor in a staging folder."""
    folders = [target, *target.parent.glob(f".{target.name}.incoming-*")]
    return [name for name in FOREIGN if not any((folder / name).is_file() for folder in folders)]


def soak(name: str, count: int, seed: int, longest: float) -> int:
    """Kills `count` writers of one kind; returns the number of failures."""
    context, chance = multiprocessing.get_context("fork"), random.Random(seed)
    failures: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="itrex-sweet-kills-")))
        models, target = folder / "models", folder / "target" / "model"
        make_models(models)
        SweetModelForSequenceClassification.from_pretrained(models / NAMES[0]).save_pretrained(target)
        for file, contents in FOREIGN.items():
            (target / file).parent.mkdir(exist_ok=True)
            (target / file).write_bytes(contents)
        stop, reads, reader_failures = context.Event(), context.Value("l", 0), context.SimpleQueue()
        reader = context.Process(target=read_continuously, args=(target, stop, reads, reader_failures))
        reader.start()
        seen = ConsistencyCheck()
        for round_ in range(count):
            try:
                kill_once(functools.partial(WORKS[name], models, target, round_), chance, longest)
                seen.check(target)
                assert not lost_files(target), f"lost {lost_files(target)}"
                if round_ % 10 == 9:
                    require_writable(target)
                    assert [path.name for path in target.parent.iterdir()] == [target.name], "staging folders remain"
                    assert all((target / file).is_file() for file in FOREIGN), "foreign files were not restored"
            except Exception as error:
                failures.append(f"kill {round_}: {error!r}")
        stop.set()
        reader.join()
        while not reader_failures.empty():
            failures.append(reader_failures.get())
        print(f"{name}: {count} kills, {reads.value} reads, {len(failures)} failures; states {sorted(seen.totals)}")
    for failure in failures[:20]:
        print(" ", failure)
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="number of kills per kind")
    parser.add_argument("--work", choices=[*WORKS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=0.6, help="maximum lifetime of a writer in seconds")
    parser.add_argument(
        "--neural-compressor",
        action="store_true",
        help="calibrate with Neural Compressor, which takes seconds per round",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if not arguments.neural_compressor:
        quantizer.observe = observe_with_hooks
    names = list(WORKS) if arguments.work == "all" else [arguments.work]
    failures = [soak(name, arguments.count, arguments.seed, arguments.longest) for name in names]
    return int(any(failures))


if __name__ == "__main__":
    sys.exit(main())
