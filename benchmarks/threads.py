"""Times of the native engine on one thread and on several, for calls of several sizes.

    python benchmarks/threads.py [--artifact DIR] [--threads 2] [--pause 2]

Prints a line per call: rows, tokens per row, and milliseconds on one thread, on all threads, and with the number that
the engine chooses. Run it on an idle machine to check the engine's threshold (`csrc/parallel.h`), and beside a program
that keeps a core busy to see the cost of several threads then. With `--pause` the caller sleeps before each call, as a
server that waits for requests; the threads then sleep too and have to wake (`csrc/placement.h`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from itrex_sweet.artifact import Artifact, open_artifact, write_artifact
from itrex_sweet.config import SweetConfig
from itrex_sweet.families import EXIT_HEADS
from itrex_sweet.runtime.backends.native import NativeBackend
from itrex_sweet.runtime.ragged import TokenBatch

# rows, tokens of each
CALLS = ((1, 1), (1, 4), (1, 8), (1, 16), (1, 32), (1, 64), (1, 128), (4, 8), (4, 32), (32, 16), (32, 32))
EXITS = (2, 3)


def main() -> None:
    """Parses the arguments and prints the times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="(default: random weights of MiniLM's layers, in float32)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="milliseconds of sleep before each call")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = open_artifact(options.artifact) if options.artifact else random_artifact(Path(folder))
        compare(artifact, options.threads, options.repeats, options.pause)


def compare(artifact: Artifact, threads: int, repeats: int, pause: float) -> None:
    """Prints a line per call: `embed` up to the last layer before the first exit, and its probe."""
    backends = {
        "one": NativeBackend(artifact, threads=1),
        "team": NativeBackend(artifact, threads=threads, min_macs_per_thread=0),
        "chosen": NativeBackend(artifact, threads=threads),
    }
    layers = artifact.exits[0] - 1
    print(f"{backends['one'].isa}, {threads} threads, {layers} layers and a probe; milliseconds, medians in turns")
    print(f"{'rows':>5} {'tokens':>6} " + " ".join(f"{name:>8}" for name in backends) + "   embed | probe")
    random = np.random.default_rng(0)
    for rows, tokens in CALLS:
        batch = TokenBatch.from_rows(random.integers(5, 90, (rows, tokens)).tolist())
        embed, probe = ({name: [] for name in backends} for _ in range(2))
        for _ in range(repeats):
            for name, backend in backends.items():
                for _ in range(3):  # only the last is timed: the first wakes the threads
                    time.sleep(pause / 1000)
                    start = time.perf_counter()
                    hidden = backend.embed(batch)
                    between = time.perf_counter()
                    backend.probe(0, hidden)
                    end = time.perf_counter()
                embed[name].append(1000 * (between - start))
                probe[name].append(1000 * (end - between))
        shown = " | ".join(
            " ".join(f"{statistics.median(times[name]):8.3f}" for name in backends) for times in (embed, probe)
        )
        print(f"{rows:5} {tokens:6} {shown}", flush=True)


def random_artifact(folder: Path) -> Artifact:
    """Returns an artifact of three layers of MiniLM's shape, with random weights."""
    config = BertConfig(
        vocab_size=100, hidden_size=384, num_hidden_layers=EXITS[-1], num_attention_heads=12, intermediate_size=1536
    )
    model = BertForSequenceClassification(config).eval()
    tensors = {name: value.contiguous() for name, value in model.state_dict().items() if value.is_floating_point()}
    for exit_ in EXITS[:-1]:
        for name, module in (("dense", model.bert.pooler.dense), ("classifier", model.classifier)):
            for part in ("weight", "bias"):
                tensors[f"{EXIT_HEADS}.{exit_}.{name}.{part}"] = torch.randn_like(getattr(module, part))
    config.architectures = [type(model).__name__]
    config.sweet = SweetConfig(exits=EXITS, mode="sweet").to_dict()
    return write_artifact(folder, config=config, tensors=tensors)


if __name__ == "__main__":
    main()
