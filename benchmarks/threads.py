"""When a second thread pays: times of the native engine on one thread and on a team, for calls of several sizes.

    python benchmarks/threads.py [--artifact DIR] [--threads 2]

Prints one line per call: rows, tokens of each, and milliseconds on one thread, on a team used for every call, and
as the engine chooses. The engine's rule is `kLeastWork` in `csrc/model.h`; run this on an idle machine to check it, and
beside a program that keeps a core busy to see what a team costs then.
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
    """Times and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, help="(default: random weights of MiniLM's layers, in float32)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = open_artifact(options.artifact) if options.artifact else random_artifact(Path(folder))
        compare(artifact, options.threads, options.repeats)


def compare(artifact: Artifact, threads: int, repeats: int) -> None:
    """One line per call, `embed` to the last layer before the first exit and its probe."""
    backends = {
        "one": NativeBackend(artifact, threads=1),
        "team": NativeBackend(artifact, threads=threads, least_work=0),
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
                for _ in range(3):  # the last alone is timed: threads that sleep are another matter
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
    """Three layers of MiniLM's shape, with random weights."""
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
