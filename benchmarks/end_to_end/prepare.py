"""Prepares the models of `run.py` from the runs of `benchmarks/decoupled/run.py`; minutes per task.

    python benchmarks/end_to_end/prepare.py --tasks sst2

Per task and seed 0, into `--folder`: INT8 artifacts with policies chosen on held-out rows, students of one and two
layers, linear models, and the peers' converted models. What is there is not made again; `--again policies` makes a
part again, such as the policies after a change of the engine, whose times they depend on.

Model2Vec's distillation allows no transformers after 5.3, so `make bench` cannot install it, but runs with later ones:

    pip install --no-deps model2vec==0.10.0 skeletoken==0.6.1
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from decoupled.artifacts import FOLDER as RUNS_FOLDER
from decoupled.artifacts import float32_artifact
from peers import engine_class
from peers.contenders import restore_order, split_batches
from record import RUNS, provenance

from end_to_end import linear, students
from end_to_end.policies import choose
from end_to_end.rows import TASKS, TaskRows, rows_of
from itrex_sweet import SweetModelForSequenceClassification, SweetQuantizer
from itrex_sweet.data import Rows

FOLDER = RUNS / "end_to_end"
PARTS = ("int8", "linear", "students", "converted", "reference", "policies")
COSTS = "costs.json"
REFERENCE = "reference.json"  # accuracies of the plain model in PyTorch
DEPTHS = (2, 1)
ENGINES = ("OpenVINO INT8", "ONNX Runtime INT8")
STUDENT_ENGINE = "OpenVINO INT8"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--runs", type=Path, default=RUNS_FOLDER, help="folder of the plain models with exits")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--again", nargs="+", choices=PARTS, default=())
    parser.add_argument("--depths", type=int, nargs="*", default=DEPTHS, help="layers of the students")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for task in options.tasks:
        rows = rows_of(task)
        run, folder = options.runs / f"{task}-0", options.folder / f"{task}-0"
        for part in options.parts:
            start = time.perf_counter()
            made = _MAKERS[part](task, run, folder, rows, options, part in options.again)
            print(f"{task}, {part}: {time.perf_counter() - start:.0f} s {made or ''}", flush=True)


def _int8(task: str, run: Path, folder: Path, rows: TaskRows, options: Any, again: bool) -> None:
    float32_artifact(run)
    if again:
        shutil.rmtree(folder / "int8", ignore_errors=True)
    if not (folder / "int8" / "sweet_config.json").is_file():
        texts, labels = (given + compared for given, compared in zip(rows.quantization, rows.compared, strict=True))
        SweetQuantizer.from_pretrained(run / "float32").quantize(Rows(texts, labels), folder / "int8")


def _linear(task: str, run: Path, folder: Path, rows: TaskRows, options: Any, again: bool) -> dict[str, float]:
    if again:
        for path in folder.glob("*.joblib"):
            path.unlink()
    return linear.train(options.folder, task, rows.training, rows.choice)


def _students(task: str, run: Path, folder: Path, rows: TaskRows, options: Any, again: bool) -> None:
    for depth in options.depths:
        own = folder / f"student-{depth}"
        if again:
            shutil.rmtree(own, ignore_errors=True)
        if not (own / "float32" / "sweet_config.json").is_file():
            students.distill(run / "plain", run / "float32", depth, *rows.training, own)
        students.quantized(own, *rows.quantization)


def _converted(task: str, run: Path, folder: Path, rows: TaskRows, options: Any, again: bool) -> None:
    calibration = calibration_batch(run, rows)
    for name in ENGINES:
        engine_class(name)(run / "plain", calibration, options.threads)
    for depth in options.depths:
        if (folder / f"student-{depth}" / "plain").is_dir():
            engine_class(STUDENT_ENGINE)(folder / f"student-{depth}" / "plain", calibration, options.threads)


def _policies(task: str, run: Path, folder: Path, rows: TaskRows, options: Any, again: bool) -> Any:
    path = folder / "policies.json"
    if again or not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        found = choose(run, folder, rows.choice, options.threads, options.folder / COSTS)
        path.write_text(json.dumps({**provenance(), **found}, indent=1) + "\n", encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: value.get("layers", value) for name, value in found.items() if name.endswith(("-32", "-1"))}


def _reference(task: str, run: Path, folder: Path, rows: TaskRows, options: Any, again: bool) -> Any:
    path = folder / REFERENCE
    if again or not path.is_file():
        packed = SweetModelForSequenceClassification.from_pretrained(run / "float32").read(rows.reported[0])
        truth, scores = np.asarray(rows.reported[1]), {}
        for name in ("torch fp32", "torch bf16"):
            engine = engine_class(name)(run / "plain", packed, options.threads)
            engine.load("reported", split_batches(packed)["sorted"])
            logits = restore_order(engine.answers("reported"), packed, "sorted")
            scores[name] = round(float((logits.argmax(-1) == truth).mean()), 5)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(scores) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def calibration_batch(run: Path, rows: TaskRows) -> Any:
    """Returns the packed rows of the quantization."""
    return SweetModelForSequenceClassification.from_pretrained(run / "float32").read(rows.quantization[0])


_MAKERS = {
    "int8": _int8,
    "linear": _linear,
    "students": _students,
    "converted": _converted,
    "reference": _reference,
    "policies": _policies,
}

if __name__ == "__main__":
    main()
