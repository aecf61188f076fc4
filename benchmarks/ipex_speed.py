"""Speed of the `ipex` backend in INT8 beside a monolithic IPEX TorchScript graph of all layers.

    python benchmarks/ipex_speed.py

Runs in the environment of the [ipex] extra: shapes of BERT-base and MiniLM with random weights, and MiniLM trained on
SST-2 by `decoupled/run.py`, in `--folder`. The monolithic graphs run every layer in full: IPEX's own quantization of
the Hugging Face model, with attention in INT8 too, and the INT8 layers of the artifact. The runs of a table are
interleaved in one process, warm, with equal threads; medians.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoupled.artifacts import FOLDER, float32_artifact, int8_artifact, run_folder
from ipex_monoliths import Monolith, dense_inputs, monoliths, padded, run_all, traced
from peers.ipex_static import ipex_quantized
from record import check_idle_machine, measure, provenance, read_task, write_result
from shapes import EXITS, SHAPES, random_artifact, random_batch
from transformers import AutoModelForSequenceClassification

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import Artifact, open_artifact
from itrex_sweet.evaluation.report import single_exit_policy
from itrex_sweet.policy import Policy
from itrex_sweet.runtime.backends import load_backend
from itrex_sweet.runtime.backends.ipex import import_ipex
from itrex_sweet.runtime.executor import Executor
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_encoder import load_torch_encoder

BATCHES = ((1, 32), (1, 128), (8, 128), (32, 32))
THRESHOLDS = (0.8, 0.9, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rows", type=int, default=320, help="sentences of SST-2")
    parser.add_argument("--busy", action="store_true", help="skip the check that the machine is idle")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not options.busy:
        check_idle_machine()  # before the import of IPEX, which starts processes
    import_ipex()
    run = run_folder(options.folder, "sst2")
    trained = open_artifact(float32_artifact(run)), open_artifact(int8_artifact(run, "static", "ipex"))
    shapes = {}
    for name in SHAPES:
        shapes[name] = fixed_shapes(random_artifact(name), options)
        gc.collect()
    result = {
        **provenance(),
        "ipex": metadata.version("intel-extension-for-pytorch"),
        "settings": {"threads": options.threads, "repeats": options.repeats, "exits": EXITS},
        "shapes": shapes,
        "sst2": real_lengths(*trained, options),
        "backends": every_backend(*trained, options),
    }
    print(write_result("ipex_speed", result))


# Fixed shapes, random weights


def fixed_shapes(artifact: Artifact, options: argparse.Namespace) -> dict[str, Any]:
    """Measures milliseconds per batch with all rows leaving at each exit, beside both monolithic graphs."""
    backend = load_backend(artifact, "ipex", warm_up=BATCHES)
    depth, tables = artifact.exits[-1], {}
    for rows, length in BATCHES:
        batch = random_batch(artifact, rows, length)
        executor = Executor(backend, Policy.uniform(len(artifact.exits)), batch_size=rows)
        own, of_artifact = monoliths(artifact, rows, length)
        contenders = {"monolith, IPEX's own": own, "monolith, the artifact's layers": of_artifact}
        for place, exit_ in enumerate(artifact.exits):
            contenders[f"exit {exit_}"] = partial(executor.run, batch, single_exit_policy(place, executor.policy))
        repeats = options.repeats if rows * length > 512 else 4 * options.repeats
        times = measure(contenders, repeats, 1)
        full = times[f"exit {depth}"]["median"]
        tables[f"{rows}x{length}"] = {
            "milliseconds": times,
            "full_depth_against_ipex_own": round(full / times["monolith, IPEX's own"]["median"], 3),
            "full_depth_against_same_layers": round(full / times["monolith, the artifact's layers"]["median"], 3),
            "realised_share_of_layer_ratio": {
                str(exit_): round(full / times[f"exit {exit_}"]["median"] / (depth / exit_), 3)
                for exit_ in artifact.exits[:-1]
            },
        }
        print_medians(f"{artifact.directory.name} {rows}x{length}", tables[f"{rows}x{length}"])
    return tables


# Sentences of SST-2, trained weights


def real_lengths(source: Artifact, artifact: Artifact, options: argparse.Namespace) -> dict[str, Any]:
    """Measures milliseconds per sentence of SST-2 at batch 1 and 32, at several thresholds, and accuracy."""
    texts, labels = read_task("sst2", "validation", options.rows)
    reader = SweetModelForSequenceClassification.from_pretrained(artifact.directory, backend="torch")
    rows = reader.read(texts)
    order = np.argsort(rows.lengths, kind="stable")
    model = SweetModelForSequenceClassification.from_pretrained(artifact.directory, backend="ipex")
    policies = {threshold: model.policy.with_threshold(threshold) for threshold in THRESHOLDS}
    policies["stored"] = model.policy
    result: dict[str, Any] = {"rows": len(rows), "mean_tokens": round(float(rows.lengths.mean()), 1)}
    plain = AutoModelForSequenceClassification.from_pretrained(source.directory).eval()
    for size in (1, 32):
        places = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [rows.select(place) for place in places]
        longest = [int(batch.lengths.max()) for batch in batches]
        longest_rows = padded(rows.select(order[-32:]))
        own = ipex_quantized(plain, [longest_rows], longest_rows)
        of_artifact = traced(Monolith(load_torch_encoder(artifact)), dense_inputs(batches[-1]))
        contenders: dict[str, Callable[[], Any]] = {
            "monolith, IPEX's own, sorted": partial(run_all, own, [padded(batch) for batch in batches]),
            "monolith, the artifact's layers, sorted": partial(
                run_all, of_artifact, [dense_inputs(batch) for batch in batches]
            ),
        }
        for name, policy in policies.items():
            contenders[f"threshold {name}"] = partial(one_by_one, model.executor, batches, policy) if size == 1 else (
                partial(model.executor.run, rows, policy, size)
            )  # fmt: skip
        for run in contenders.values():  # compiles the shapes of all passes
            run()
        times = measure(contenders, max(3, options.repeats // 3), len(rows))
        best = times["monolith, IPEX's own, sorted"]["median"]
        result[f"batch {size}"] = {
            "milliseconds_per_sentence": times,
            "against_ipex_own": {name: round(best / value["median"], 3) for name, value in times.items()},
            "longest": max(longest),
        }
        print_medians(f"SST-2, batch {size}", result[f"batch {size}"])
    result["compilations"] = {"made": model.backend.compilations, "bound": model.backend.max_compilations}
    truth = np.asarray(labels)
    result["answers"] = {str(name): answers(model, rows, truth, policy) for name, policy in policies.items()}
    return result


def every_backend(source: Artifact, artifact: Artifact, options: argparse.Namespace) -> dict[str, Any]:
    """Measures milliseconds per sentence of SST-2 by backend and precision, the basis of `backend="auto"`."""
    texts, _ = read_task("sst2", "validation", options.rows)
    models = {
        "torch float32": SweetModelForSequenceClassification.from_pretrained(source.directory, backend="torch"),
        "ipex float32": SweetModelForSequenceClassification.from_pretrained(source.directory, backend="ipex"),
        "ipex bfloat16": SweetModelForSequenceClassification.from_pretrained(
            source.directory, backend="ipex", dtype="bfloat16"
        ),
        "torch INT8": SweetModelForSequenceClassification.from_pretrained(artifact.directory, backend="torch"),
        "ipex INT8": SweetModelForSequenceClassification.from_pretrained(artifact.directory, backend="ipex"),
    }
    rows = models["torch float32"].read(texts)
    batches = [rows.select(np.array([place])) for place in range(0, len(rows), 4)]
    result = {}
    for threshold in (0.9, 1.0):
        for size, count in ((1, len(batches)), (32, len(rows))):
            contenders = {}
            for name, model in models.items():
                policy = model.policy.with_threshold(threshold)
                run = partial(one_by_one, model.executor, batches, policy)
                contenders[name] = run if size == 1 else partial(model.executor.run, rows, policy, size)
                contenders[name]()
            result[f"threshold {threshold:g}, batch {size}"] = measure(contenders, max(3, options.repeats // 3), count)
    for name, times in result.items():
        print(name, {backend: value["median"] for backend, value in times.items()}, flush=True)
    return result


def answers(
    model: SweetModelForSequenceClassification, rows: TokenBatch, truth: np.ndarray, policy: Policy
) -> dict[str, float]:
    """Returns accuracy in percent and layers per row."""
    output = model.executor.run(rows, policy)
    correct = output.logits.argmax(-1) == truth
    return {
        "accuracy": round(100 * float(correct.mean()), 2),
        "mean_layers": round(float(model.exit_layers(output).mean()), 3),
    }


def one_by_one(executor: Executor, batches: list[TokenBatch], policy: Policy) -> None:
    for batch in batches:
        executor.run(batch, policy)


def print_medians(name: str, table: dict[str, Any]) -> None:
    """Prints medians and ratios."""
    times = table.get("milliseconds") or table["milliseconds_per_sentence"]
    print(name, {key: value["median"] for key, value in times.items()}, flush=True)
    print("   ", {key: value for key, value in table.items() if "milliseconds" not in key}, flush=True)


if __name__ == "__main__":
    main()
