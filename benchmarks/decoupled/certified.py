"""Certified speed of `itrex_sweet.accelerate` on plain fine-tunings of the paper's tasks, with unlabelled texts.

    python benchmarks/decoupled/certified.py      # on an idle machine: some minutes a task

Uses the plain models of `benchmarks/decoupled/run.py`. The traffic of a task is every row that the model was not
trained on: the rest of its training rows, and the validation rows. `accelerate` splits it into parts for the exits, for
quantization and pruning, for calibration, and for the measurement. Finished tasks and steps are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paper import plan
from paper.run import TRAINED, training_rows
from record import RESULTS, check_idle_machine, provenance, read_task, write_result

from decoupled.artifacts import FOLDER
from itrex_sweet import accelerate
from itrex_sweet.errors import SweetError

RESULT = "certified"
DROP = 0.01  # of the labels that may change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=plan.TASKS, default=plan.TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    path = RESULTS / f"{RESULT}.json"
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"] if path.is_file() else {}
    for task in options.tasks:
        run = options.folder / f"{task}-{options.seed}"
        if task in tasks or not (run / "plain").is_dir():
            continue
        check_idle_machine()
        source = provenance()  # tasks may be measured on different days
        priority = {"priority": source["machine"]["priority"]} if "priority" in source["machine"] else {}
        tasks[task] = {"commit": source["commit"], **priority, **one(task, run, options.threads, options.seed)}
        in_order = {each: tasks[each] for each in plan.TASKS if each in tasks}
        settings = {"seed": options.seed, "threads": options.threads, "max_agreement_drop": DROP}
        write_result(RESULT, {**provenance(), "settings": settings, "tasks": in_order})
        print(task, tasks[task], flush=True)


def one(task: str, run: Path, threads: int, seed: int) -> dict[str, Any]:
    """Accelerates the plain model of a run, and returns its figures, or the reason why it was refused."""
    texts = traffic_of(task)
    try:
        done = accelerate(
            run / "plain", texts, run / "accelerated", max_agreement_drop=DROP, threads=threads, seed=seed
        )
    except SweetError as error:
        return {"texts": len(texts), "refused": f"{type(error).__name__}: {error}"}
    measured = done.measured
    calibration = done.artifact.calibration
    return {
        "texts": len(texts),
        "exits": list(measured.exits),
        "rows": measured.rows,
        "rows testing": calibration["rows_testing"],
        "certified layers": calibration["chosen"]["mean_layers"],
        "layers": round(measured.mean_layers, 4),
        "depth": measured.exits[-1],
        "agreement with full depth": round(measured.agreement_with_full_depth, 5),
        "agreement with the checkpoint": round(measured.agreement, 5),
        "within the guarantee": measured.guarantee_holds,
        "texts per second": {
            "policy": round(1000 / measured.milliseconds, 1),
            "full depth": round(1000 / measured.milliseconds_full_depth, 1),
            "checkpoint": round(1000 / measured.milliseconds_checkpoint, 1),
        },
    }


def traffic_of(task: str) -> list[Any]:
    """Returns the texts of every row that the plain model was not trained on."""
    _, (pool, _) = training_rows(task, TRAINED)
    try:
        more = read_task(task, "train_20k")[0][TRAINED:]  # begins with the pool
    except SystemExit:
        more = pool
    return [*more, *read_task(task, "validation")[0]]


if __name__ == "__main__":
    main()
