"""Converts the trained models of `benchmarks/decoupled/run.py` to artifacts."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from decoupled.variants import CHOSEN, VARIANTS
from itrex_sweet import SweetConfig, attach, save_artifact


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
