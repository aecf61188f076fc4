"""Measures the table of the README: accuracy and texts per second of early exit, plain fine-tuning and INT8 engines.

    python benchmarks/decoupled/run.py --tasks sst2 --variants softened     # trains the models
    python benchmarks/headline.py --prepare      # artifacts of all engines, on an idle machine
    python benchmarks/headline.py                # measures, on an idle machine

Every seed's model is fine-tuned once, with decoupled exits beside it, so all engines run the same weights: the peers
the plain model, early exit the same model with exits, quantized on held-out rows, with a policy that is certified on
others. A time covers tokenization and padding of strings in batches of 32, in the order of the data set. The engines
take turns; each runs the configuration that is fastest for these batches (`benchmarks/peers`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from decoupled.artifacts import FOLDER, float32_artifact, run_folder
from fine_tuning import MAX_LENGTH
from headline_report import RESULT
from peers import engine_class
from peers.base import Engine
from peers.contenders import BATCH, accuracy_percent
from record import check_idle_machine, held_out_rows, provenance, read_task, write_result
from transformers import AutoTokenizer

import itrex_sweet
from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.cli import main as command
from itrex_sweet.data import Rows

PEERS = {
    "plain": ("torch fp32", "plain fine-tuning, PyTorch float32"),
    "bfloat16": ("torch bf16", "the same, PyTorch bfloat16"),
    "onnxruntime": ("ONNX Runtime INT8", "the same, ONNX Runtime INT8"),
    "openvino": ("OpenVINO INT8", "the same, OpenVINO INT8"),
}
TITLES = {"sst2": "SST-2", "ag_news": "AG News"}
BUDGETS = {"careful": 0.01, "ours": 0.02}  # accuracy that the certified policy may lose
OBSERVED, HELD_OUT = 500, 8000  # rows to quantize with, and to calibrate on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prepare", action="store_true", help="quantize, calibrate and convert the models only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = [run_folder(options.folder, options.task, seed) for seed in options.seeds]
    for run in runs:
        if not (run / "ours").is_dir():
            prepare(run, options.task)
    if options.prepare:
        for run in runs:
            peers(run, options.task, options.threads)
    else:
        check_idle_machine()
        measure(runs, options)


def prepare(run: Path, task: str) -> None:
    """Writes an artifact per budget beside a run's plain model, quantized and calibrated on held-out rows."""
    float32 = float32_artifact(run)
    texts, labels = held_out_rows(task, OBSERVED + HELD_OUT)
    observed = Rows(texts[:OBSERVED], labels[:OBSERVED], source=f"{task}, held out")
    with tempfile.TemporaryDirectory() as folder:
        held_out = Path(folder) / "held-out.jsonl"
        rows = zip(texts[OBSERVED:], labels[OBSERVED:], strict=True)
        held_out.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
        SweetQuantizer.from_pretrained(float32).quantize(observed, Path(folder) / "int8")
        for name, budget in BUDGETS.items():
            shutil.copytree(Path(folder) / "int8", run / name, dirs_exist_ok=True)
            status = command(
                f"calibrate {run / name} --data {held_out} --max-accuracy-drop {budget} --batch-size {BATCH}".split()
            )
            if status:
                raise SystemExit(status)


def peers(run: Path, task: str, threads: int) -> dict[str, Engine]:
    """Loads the peers with a run's plain model, converting it for each where no conversion is cached."""
    reader = SweetModelForSequenceClassification.from_pretrained(run / "float32")
    calibration = reader.read(held_out_rows(task, OBSERVED)[0], MAX_LENGTH)
    return {key: engine_class(name)(run / "plain", calibration, threads) for key, (name, _) in PEERS.items()}


def measure(runs: list[Path], options: argparse.Namespace) -> None:
    """Measures all engines in turns, run by run, and writes the result."""
    task = options.task
    texts, labels = read_task(task, "validation")
    truth = torch.tensor(labels).numpy()
    methods: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = {}
    for run in runs:
        tokenizer = AutoTokenizer.from_pretrained(run / "plain", model_max_length=MAX_LENGTH)
        reader = SweetModelForSequenceClassification.from_pretrained(run / "float32")
        batches = [reader.read(texts[start : start + BATCH], MAX_LENGTH) for start in range(0, len(texts), BATCH)]
        contenders: dict[str, Callable[[], float]] = {}
        scores: dict[str, float] = {}
        layers: dict[str, float] = {}
        for key, engine in peers(run, task, options.threads).items():
            versions |= engine.versions()
            engine.load(key, batches)
            scores[key] = accuracy_percent(engine.answers(key), truth)
            contenders[key] = partial(run_peer, engine, key, tokenizer, texts)
        for key in BUDGETS:
            classifier = itrex_sweet.load(run / key, threads=options.threads)
            answers = classifier.predict(texts, batch_size=BATCH)
            names = classifier.labels
            scores[key] = (
                100
                * sum(names.index(answer["label"]) == label for answer, label in zip(answers, labels, strict=True))
                / len(labels)
            )
            layers[key] = sum(answer["exit_layer"] for answer in answers) / len(answers)
            contenders[key] = partial(predict, classifier, texts)
        seconds: dict[str, list[float]] = {key: [] for key in contenders}
        for repeat in range(1 + options.repeats):
            for key, run_once in contenders.items():
                elapsed = run_once()
                if repeat > 0:  # the first warms up
                    seconds[key].append(elapsed)
        for key, each in seconds.items():
            figures = methods.setdefault(key, {"name": title(key), "score": [], "texts_per_second": []})
            figures["score"].append(round(scores[key], 2))
            figures["texts_per_second"].append(round(len(texts) / median(each), 1))
            if key in layers:
                figures.setdefault("layers", []).append(round(layers[key], 3))
        print(run.name, {key: (f["score"][-1], f["texts_per_second"][-1]) for key, f in methods.items()}, flush=True)
    about = provenance()
    about["versions"] |= versions
    settings = {
        "model": "MiniLM of 6 layers, 6000 training rows, exits 1/2/4/6",
        "seeds": options.seeds,
        "threads": options.threads,
        "repeats": options.repeats,
        "batch": BATCH,
        "budget": (
            "The loss is that against the same INT8 model at full depth, certified on other rows with 95 % confidence."
        ),
    }
    tasks = {task: {"title": TITLES.get(task, task), "rows": len(texts), "metric": "accuracy", "methods": methods}}
    write_result(RESULT.stem, {**about, "settings": settings, "tasks": tasks})


def title(key: str) -> str:
    """Returns the displayed name of a method."""
    if key in PEERS:
        return PEERS[key][1]
    return f"with exits, INT8, native engine, at most {BUDGETS[key]:.0%} lost"


def run_peer(engine: Engine, key: str, tokenizer: Any, texts: list[str]) -> float:
    """Returns the seconds of transformers' tokenizer, with padding, and of the engine for all batches."""
    start = time.perf_counter()
    for place in range(0, len(texts), BATCH):
        tokenizer(texts[place : place + BATCH], truncation=True, padding=True, return_tensors="np")
    return time.perf_counter() - start + float(sum(engine.run(key)))


def predict(classifier: itrex_sweet.Classifier, texts: list[str]) -> float:
    """Returns the seconds from strings to labels."""
    start = time.perf_counter()
    for place in range(0, len(texts), BATCH):
        classifier.predict(texts[place : place + BATCH])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
