"""Agreement of a fast backend with the reference: labels at every exit, in fp32 and INT8, on several tasks.

    python benchmarks/agreement.py --backend native --tasks sst2 qnli ag_news

Uses the trained models of `decoupled/run.py` in `--folder`, and their INT8 artifacts (`decoupled/artifacts.py`); `ipex`
in the environment of its extra. For labels that differ, it records the margin between the two best logits of the
reference.
"""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoupled.artifacts import FOLDER, float32_artifact, int8_artifact, run_folder
from record import provenance, read_task, write_result

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.evaluation.outcomes import outputs_at_every_exit

# name → recipe and environment of an INT8 artifact, or `None` for float32
ARTIFACTS: dict[str, dict[str, tuple[str, str] | None]] = {
    "ipex": {
        "float32": None,
        "static": ("static", "ipex"),
        "smooth": ("smooth", "ipex"),
        "static, made in the other environment": ("static", "default"),
    },
    "native": {
        "float32": None,
        "static": ("static", "default"),
        "smooth": ("smooth", "default"),
        "dynamic": ("dynamic", "default"),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=ARTIFACTS, required=True)
    parser.add_argument("--tasks", nargs="+", default=["sst2", "qnli", "ag_news"])
    parser.add_argument("--artifacts", nargs="+", metavar="NAME", help="(default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rows", type=int, default=1000, help="validation rows, the first ones")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tasks: dict[str, Any] = {}
    for task in options.tasks:
        known = ARTIFACTS[options.backend]
        run = run_folder(options.folder, task)
        tasks[task] = {}
        for name in options.artifacts or known:
            folder = float32_artifact(run) if known[name] is None else int8_artifact(run, *known[name])
            tasks[task][name] = compare(task, folder, options.backend, options.rows)
        print(task, tasks[task], flush=True)
    result: dict[str, Any] = {**provenance(), "settings": {"rows": options.rows, "threads": options.threads}}
    if options.backend == "ipex":
        result["ipex"] = metadata.version("intel-extension-for-pytorch")
    print(write_result(f"{options.backend}_agreement", {**result, "tasks": tasks}))


def compare(task: str, folder: Path, backend: str, rows: int) -> dict[str, Any]:
    """Compares labels (in percent) and logits of a backend and the reference."""
    texts, _ = read_task(task, "validation", rows)
    logits, answers = {}, {}
    for name in ("torch", backend):
        model = SweetModelForSequenceClassification.from_pretrained(folder, backend=name)
        batch = model.read(texts)
        logits[name] = outputs_at_every_exit(model.executor, batch)[0]
        answers[name] = model.executor.run(batch)
    reference, other = logits["torch"], logits[backend]
    same = reference.argmax(-1) == other.argmax(-1)
    ordered = np.sort(reference, axis=-1)
    margins = (ordered[..., -1] - ordered[..., -2])[~same]
    exits = {name: each.exit_index for name, each in answers.items()}
    labels = {name: each.logits.argmax(-1) for name, each in answers.items()}
    return {
        "rows": len(same),
        "same_label_per_exit": np.round(100 * same.mean(0), 2).tolist(),
        "same_label_over_exits": round(100 * float(same.mean()), 3),
        "labels_that_differ": int((~same).sum()),
        "largest_margin_where_they_differ": None if same.all() else round(float(margins.max()), 4),
        "median_margin": round(float(np.median(ordered[..., -1] - ordered[..., -2])), 4),
        "mean_difference_of_logits": round(float(np.abs(reference - other).mean()), 6),
        "largest_difference_of_logits": round(float(np.abs(reference - other).max()), 6),
        "same_exit_under_the_policy": round(100 * float((exits["torch"] == exits[backend]).mean()), 2),
        "same_answer_under_the_policy": round(100 * float((labels["torch"] == labels[backend]).mean()), 2),
    }


if __name__ == "__main__":
    main()
