"""Measures classifiers from strings to labels, in batches of 32 and one by one, and writes the result after each task.

    python benchmarks/end_to_end/prepare.py      # minutes per task
    python benchmarks/end_to_end/run.py          # on an idle machine: two minutes per task

Accuracy is that of all validation rows, and times are those of the first `--texts` of them. The contenders take turns,
with equal threads; medians are reported.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from decoupled.artifacts import FOLDER as RUNS_FOLDER
from peers import engine_class
from record import RESULTS, check_idle_machine, provenance, write_result

from end_to_end import cold, linear
from end_to_end.contenders import OURS, RIVAL, Contender, FullDepthEngine, Linear, Ours
from end_to_end.policies import BATCHES, CERTIFIED, CHOSEN, KEPT
from end_to_end.prepare import DEPTHS, ENGINES, FOLDER, REFERENCE, STUDENT_ENGINE, calibration_batch
from end_to_end.rows import TASKS, TaskRows, rows_of
from end_to_end.split import cost_split
from itrex_sweet.artifact import open_artifact
from itrex_sweet.evaluation.report import single_exit_policy

RESULT = "end_to_end"
PAUSE = 0.25  # seconds after an engine whose threads spin
SPINNING = ("torch", "ONNX")
SLOW_TEXTS, SLOW_REPEATS = 96, 3
LEAST_REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--runs", type=Path, default=RUNS_FOLDER, help="folder of the plain models with exits")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of prepare.py")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=512, help="timed texts per task")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=100, help="per task, after which no repeat is started")
    parser.add_argument("--rows", type=int, help="maximum number of rows for accuracy (default: all)")
    parser.add_argument("--name", default=RESULT, help="name of the result")
    parser.add_argument("--busy", action="store_true", help="skip the check that the machine is idle")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("itrex_sweet").setLevel(logging.ERROR)  # no line per call that cuts a text
    if not options.busy:
        check_idle_machine(3.0)
    path = RESULTS / f"{options.name}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"tasks": {}}
    names = ("threads", "texts", "repeats", "seconds", "busy")
    settings = {**{name: getattr(options, name) for name in names}, "batches": list(BATCHES), "kept": KEPT}
    result = {**provenance(), "settings": settings, "engines": {}, "cold": result.get("cold"), "tasks": result["tasks"]}
    for task in options.tasks:
        start = time.perf_counter()
        result["tasks"][task] = measured(task, options, result["engines"])
        result["tasks"] = {each: result["tasks"][each] for each in TASKS if each in result["tasks"]}
        write_result(options.name, result)
        print(f"{task}: {time.perf_counter() - start:.0f} s", flush=True)
    result["cold"] = cold_starts(options.tasks[0], options)
    write_result(options.name, result)


def measured(task: str, options: argparse.Namespace, engines: dict[str, Any]) -> dict[str, Any]:
    """Returns accuracy, speed and configuration of every contender on a task."""
    rows, folder = rows_of(task), options.folder / f"{task}-0"
    texts, truth = (column[: options.rows] for column in rows.reported)
    timed = texts[: options.texts]
    contenders = contenders_of(task, rows, options, engines)
    names = contenders[0].names
    figures: dict[str, dict[str, Any]] = {}
    scores = {}
    reference = json.loads((folder / REFERENCE).read_text(encoding="utf-8"))
    for each in contenders:
        each.prepare(timed, BATCHES[0])
        scored = reference.get(each.title)
        if scored is None:
            answered = np.array([names.index(answer) for answer in each.classify_all(texts, BATCHES[0])])
            scored = round(float((answered == truth).mean()), 5)
        scores[each.title] = scored
        figures[each.title] = {"kind": each.kind, "accuracy": scored, "milliseconds": {}, "configuration": {}}
        if isinstance(each, Ours):
            figures[each.title]["layers"] = round(each.mean_layers(texts), 4)
    print(f"{task}: {len(texts)} rows, accuracy {scores}", flush=True)
    splits = {}
    for size in BATCHES:
        stop = time.perf_counter() + options.seconds / len(BATCHES)
        for each in contenders:
            if size != BATCHES[0]:  # prepared for the answers
                each.prepare(timed, size)
            if each.configuration:
                figures[each.title]["configuration"][str(size)] = each.configuration
        for title, times in interleaved(contenders, timed, size, options.repeats, stop).items():
            low, middle, high = np.percentile(times, (25, 50, 75))
            figures[title]["milliseconds"][str(size)] = {
                "median": round(middle, 5), "quartiles": [round(low, 5), round(high, 5)], "repeats": len(times)
            }  # fmt: skip
        splits[str(size)] = {
            each.title: cost_split(each, timed, size, options.repeats) for each in contenders if each.kind == OURS
        }
        speeds = {title: round(1000 / each["milliseconds"][str(size)]["median"]) for title, each in figures.items()}
        print(f"{task}, {size} per call, texts per second: {speeds}", flush=True)
    return {
        "title": TASKS[task],
        "rows": len(texts),
        "timed": len(timed),
        "plain": reference["torch fp32"],
        "policies": json.loads((folder / "policies.json").read_text(encoding="utf-8")),
        "split": splits,
        "contenders": figures,
    }


def contenders_of(task: str, rows: TaskRows, options: argparse.Namespace, versions: dict[str, Any]) -> list[Contender]:
    """Loads everything that is compared on a task; models that were not prepared are left out."""
    run, folder, threads = options.runs / f"{task}-0", options.folder / f"{task}-0", options.threads
    artifact = open_artifact(folder / "int8", weights=False)
    names, exits = artifact.label_names, artifact.exits
    contenders: list[Contender] = [Ours(f"early exit, {name}", folder / name, threads) for name in (CHOSEN, CERTIFIED)]
    for place, exit_ in enumerate(exits):
        policy = single_exit_policy(place, artifact.policy)
        is_full = exit_ == exits[-1]
        title = "full depth" if is_full else f"fixed exit {exit_}"
        contenders.append(Ours(title, folder / "int8", threads, policy, OURS if is_full else RIVAL))
    calibration = calibration_batch(run, rows)
    for name in (*ENGINES, "torch bf16", "torch fp32"):
        engine = engine_class(name)(run / "plain", calibration, threads)
        versions[name] = engine.versions()
        contenders.append(FullDepthEngine(name, engine, run / "plain", names))
    for depth in DEPTHS:
        own = folder / f"student-{depth}"
        if not (own / "int8" / "sweet_config.json").is_file():
            print(f"left out: {task}, a student of {depth} layers", flush=True)
            continue
        contenders.append(Ours(student_title(depth, "native engine"), own / "int8", threads, kind=RIVAL))
        engine = engine_class(STUDENT_ENGINE)(own / "plain", calibration, threads)
        contenders.append(FullDepthEngine(student_title(depth, "OpenVINO"), engine, own / "plain", names, RIVAL))
    contenders += [Linear(title, pipeline, names) for title, pipeline in linear.load(options.folder, task).items()]
    return contenders


def student_title(depth: int, engine: str) -> str:
    """Returns the name of a student in tables."""
    return f"distilled to {depth} layer{'s' if depth > 1 else ''}, INT8, {engine}"


def interleaved(
    contenders: Sequence[Contender], texts: list[Any], size: int, repeats: int, stop: float
) -> dict[str, list[float]]:
    """Measures milliseconds per text of whole passes, the contenders in turns after a warm-up.

    Args:
        contenders: slow ones run fewer texts and repeats.
        texts: of a pass.
        size: texts per call.
        repeats: at most; three at least.
        stop: time of `time.perf_counter` after which no further repeat is started.
    """
    times: dict[str, list[float]] = {each.title: [] for each in contenders}
    for repeat in range(repeats + 1):
        if repeat > LEAST_REPEATS and time.perf_counter() > stop:
            break
        for each in contenders:
            if each.is_slow and repeat > SLOW_REPEATS:
                continue
            some = texts[:SLOW_TEXTS] if each.is_slow and size == 1 else texts
            start = time.perf_counter()
            each.classify_all(some, size)
            elapsed = time.perf_counter() - start
            if repeat:
                times[each.title].append(1000 * elapsed / len(some))
            if each.title.startswith(SPINNING):
                time.sleep(PAUSE)
    return times


def cold_starts(task: str, options: argparse.Namespace) -> dict[str, float]:
    """Returns the seconds of a fresh process from its start to the first label, files in the page cache."""
    run, folder = options.runs / f"{task}-0", options.folder / f"{task}-0"
    rows = rows_of(task)
    is_pair = not isinstance(rows.reported[0][0], str)
    calibration = calibration_batch(run, rows)
    found = {"early exit": cold.seconds("ours", folder / f"{CHOSEN}-1", run / "plain", is_pair)}
    for name, kind in zip(ENGINES, ("openvino", "onnxruntime"), strict=True):
        found[name] = cold.seconds(
            kind, engine_class(name)(run / "plain", calibration, 1).folder, run / "plain", is_pair
        )
    found["torch fp32"] = cold.seconds("torch", run / "plain", run / "plain", is_pair)
    for title in linear.makers(options.folder):
        found[title] = cold.seconds("sklearn", linear.path_of(options.folder, task, title), run / "plain", is_pair)
    found = {name: round(value, 3) for name, value in found.items()}
    print(f"cold start, seconds: {found}", flush=True)
    return found


if __name__ == "__main__":
    main()
