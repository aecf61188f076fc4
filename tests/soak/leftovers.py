"""Ends `quantize` and `calibrate` at random moments and looks for what they leave: run it with a number of rounds.

Each round starts the real command in a process of its own, Neural Compressor's included, sends it a signal, and within
two seconds no process that it started and no temporary folder may be left. The model it reads has to be as it was.
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
_PATIENCE_SECONDS = 2.0
_LONGEST_SECONDS = {"quantize": 12.0, "calibrate": 6.0}


def prepared(folder: Path) -> Path:
    """A folder with `model`, an artifact, and `rows.csv`, which fits it."""
    tiny_artifact(folder / "model", tokenizer=tiny_tokenizer())
    texts = itertools.islice(itertools.product(WORDS, WORDS[:6], WORDS[:4]), 400)
    lines = [f"{' '.join(text)},{place % 3}" for place, text in enumerate(texts)]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    return folder


def command(verb: str, folder: Path, output: Path) -> list[str]:
    """The command line of a verb."""
    words = {
        "quantize": ["--calibration", folder / "rows.csv", "--rows", 50],
        "calibrate": ["--data", folder / "rows.csv", "--max-layers", 3.9, "--unit", "layers"],
    }[verb]
    return [sys.executable, "-m", "itrex_sweet.cli", verb, *map(str, [folder / "model", *words, "--output", output])]


def ended_once(verb: str, folder: Path, number: signal.Signals, seconds: float) -> str | None:
    """Ends a verb after some seconds; says what was wrong then, or `None`."""
    with tempfile.TemporaryDirectory() as name:
        temporary, output, mark = Path(name, "temporary"), Path(name, "output"), uuid.uuid4().hex
        temporary.mkdir()
        environment = {**os.environ, MARK: mark, "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            command(verb, folder, output), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(seconds)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1]
        if not eventually(lambda: not marked(mark), _PATIENCE_SECONDS):
            return f"processes {marked(mark)} are left"
        if not eventually(lambda: not list(temporary.iterdir()), _PATIENCE_SECONDS):
            return f"folders {list(temporary.iterdir())} are left"
        if number != signal.SIGKILL and "Traceback" in said:
            return f"it wrote a traceback: {said[-2000:]}"
        open_artifact(folder / "model")
        if (output / "sweet_config.json").exists():
            open_artifact(output)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=10, help="rounds of each verb")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = prepared(Path(name))
        for verb in ("quantize", "calibrate"):
            for place in range(options.count):
                number, seconds = generator.choice(SIGNALS), generator.uniform(0.0, _LONGEST_SECONDS[verb])
                wrong = ended_once(verb, folder, number, seconds)
                bad += wrong is not None
                print(f"{verb} {place}: {number.name} after {seconds:.2f} s: {wrong or 'nothing left'}", flush=True)
    print(f"{bad} of {2 * options.count} rounds left something")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
