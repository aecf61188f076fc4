"""The trained models of `benchmarks/decoupled/run.py`, and their artifacts in float32 and INT8.

Scripts that use them take the folder as `--folder`. It holds a run per task and seed, `TASK-SEED`, with the fine-tuned
model in `plain` and the exits of each variant beside it. Artifacts are created in the run on
first use.
"""

from __future__ import annotations

from pathlib import Path

import torch
from record import FIRST_HELD_OUT_ROW, RUNS, TRAINED, read_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from decoupled.variants import CHOSEN, VARIANTS
from itrex_sweet import SweetConfig, SweetQuantizer, attach, save_artifact
from itrex_sweet.data import Rows

FOLDER = RUNS / "decoupled"
OBSERVED = 200  # rows for the ranges of INT8; the following ones, up to the held-out rows, fit temperatures


def run_folder(folder: Path, task: str, seed: int = 0) -> Path:
    """Returns the folder of a run.

    Raises:
        SystemExit: the model is not trained.
    """
    run = folder / f"{task}-{seed}"
    if not (run / "plain").is_dir():
        raise SystemExit(f"{run} has no trained model: run benchmarks/decoupled/run.py --tasks {task} --seeds {seed}")
    return run


def float32_artifact(run: Path) -> Path:
    """Returns the artifact of a run's plain model with the exits of the chosen variant; creates it if it is missing.

    Args:
        run: folder of the run.

    Raises:
        SystemExit: the exits have other tensors than the attached ones.
    """
    folder = run / "float32"
    if (folder / "sweet_config.json").is_file():
        return folder
    variant = VARIANTS[CHOSEN]
    model = AutoModelForSequenceClassification.from_pretrained(run / "plain")
    attach(model, SweetConfig(exits=(*variant.exits, model.config.num_hidden_layers)))
    trained = torch.load(run / f"{CHOSEN}.pt", weights_only=True)
    named = {}
    for place, exit_ in enumerate(variant.exits):
        for name, tensor in trained.items():
            if name.startswith(f"exits.{place}."):
                part = name.removeprefix(f"exits.{place}.")
                part = part.replace("layers.0.", "layer.", 1).replace("head.", "", 1)
                named[f"sweet_exits.{exit_}.{part}"] = tensor
    missing, unexpected = model.load_state_dict(named, strict=False)
    if unexpected or any(name.startswith("sweet_exits.") for name in missing):
        raise SystemExit(f"{run}: the exits have other tensors: {unexpected or missing}")
    save_artifact(model, folder, AutoTokenizer.from_pretrained(run / "plain"))
    return folder


def int8_artifact(run: Path, recipe: str = "static", environment: str = "default") -> Path:
    """Returns the INT8 artifact of a run by a recipe; creates it, in the current environment, if it is missing.

    The rows that quantize it are used for neither training nor reporting, and are none of `record.held_out_rows`.

    Args:
        run: folder of the run, `TASK-SEED`.
        recipe: recipe of `SweetQuantizer.quantize`.
        environment: `default` or `ipex`; their Neural Compressors quantize differently.
    """
    folder = run / f"int8-{recipe}-{environment}"
    if (folder / "sweet_config.json").is_file():
        return folder
    task = run.name.rpartition("-")[0]
    texts, labels = read_task(task, "train_20k", FIRST_HELD_OUT_ROW)
    source = f"{task}, rows {TRAINED} to {FIRST_HELD_OUT_ROW}"
    rows = Rows(texts[TRAINED:], labels[TRAINED:], source=source)
    SweetQuantizer.from_pretrained(float32_artifact(run)).quantize(rows, folder, recipe, rows=OBSERVED)
    return folder
