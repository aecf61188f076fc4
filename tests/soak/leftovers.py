"""Ends `quantize` and `calibrate` at random times and checks that nothing is left over.

Each round runs the command, including Neural Compressor's process, and sends it a signal. Within two seconds, all of
its processes must have ended and its temporary folders must be removed. The input model must not change.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from itrex_sweet.artifact import open_artifact
from tests.processes import MARK, eventually, marked
from tests.tiny_artifacts import WORDS, tiny_artifact, tiny_tokenizer

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TIMEOUT_SECONDS = 2.0
_MAX_SECONDS = {"quantize": 12.0, "calibrate": 6.0}


def prepare(folder: Path) -> Path:
    """Creates the artifact `model` and matching `rows.csv` in a folder."""
    tiny_artifact(folder / "model", tokenizer=tiny_tokenizer())
    texts = itertools.islice(itertools.product(WORDS, WORDS[:6], WORDS[:4]), 400)
    lines = [f"{' '.join(text)},{index % 3}" for index, text in enumerate(texts)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    return folder


def command(verb: str, folder: Path, output: Path) -> list[str]:
    """Returns the command line of a command."""
    words = {
        "quantize": ["--calibration", folder / "rows.csv", "--rows", 50],
        "calibrate": ["--data", folder / "rows.csv", "--max-layers", 3.9, "--unit", "layers"],
    }[verb]
    return [sys.executable, "-m", "itrex_sweet.cli", verb, *map(str, [folder / "model", *words, "--output", output])]


def end_once(verb: str, folder: Path, number: signal.Signals, seconds: float) -> str | None:
    """Ends a command after some seconds; returns a description of the failure, or `None`."""
    with tempfile.TemporaryDirectory() as name:
        temporary, output, mark = Path(name, "temporary"), Path(name, "output"), uuid.uuid4().hex
        temporary.mkdir()
        environment = {**os.environ, MARK: mark, "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            command(verb, folder, output), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(seconds)
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
        if not eventually(lambda: not marked(mark), _TIMEOUT_SECONDS):
            return f"processes {marked(mark)} are left"
        if not eventually(lambda: not list(temporary.iterdir()), _TIMEOUT_SECONDS):
            return f"folders {list(temporary.iterdir())} are left"
        if number != signal.SIGKILL and "Traceback" in stderr:
            return f"it wrote a traceback: {stderr[-2000:]}"
        open_artifact(folder / "model")
        if (output / "sweet_config.json").exists():
            open_artifact(output)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=10, help="rounds per command")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, failures = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name))
        for verb in ("quantize", "calibrate"):
            for index in range(options.count):
                number, seconds = generator.choice(SIGNALS), generator.uniform(0.0, _MAX_SECONDS[verb])
                failure = end_once(verb, folder, number, seconds)
                failures += failure is not None
                print(f"{verb} {index}: {number.name} after {seconds:.2f} s: {failure or 'ok'}", flush=True)
    print(f"{failures} of {2 * options.count} rounds failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
