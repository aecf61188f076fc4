"""Time and bytes of exits that share the encoder's layers and of exits with private ones, on the native engine.

    python benchmarks/probes.py      # on an idle machine: some 2 minutes

Random weights in the shapes of BERT-base and MiniLM, float32 and INT8, batches of 1 and 32 rows of equal length. Full
depth without probes, and with the probe of every early exit and no row leaving, of both kinds, are run in turns.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from record import check_idle_machine, measure, provenance, write_result
from shapes import EXITS, SHAPES, random_artifact, random_batch

from itrex_sweet import SweetModelForSequenceClassification
from itrex_sweet.artifact import open_artifact
from itrex_sweet.policy import Policy

KINDS = {"shared": "sweet", "private": "decoupled"}  # kind of the layers → mode
BATCHES = (1, 32)
NO_PROBES, ALL_PROBES = "no probes", "all probes"
REPEATS = {1: 61, 32: 7}
FLATTENING = 1e6  # a temperature at which no row is confident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prepare", action="store_true", help="only create the artifacts")
    options = parser.parse_args()
    artifacts = {
        shape: {kind: random_artifact(shape, mode) for kind, mode in KINDS.items()} for shape in options.shapes
    }
    if options.prepare:
        return
    check_idle_machine()
    settings = {"tokens": options.tokens, "threads": options.threads, "exits": EXITS}
    result: dict[str, Any] = {**provenance(), "settings": settings, "shapes": {}}
    for shape, of_shape in artifacts.items():
        result["shapes"][shape] = {}
        for precision in ("float32", "int8"):
            folders = {kind: artifact.directory.parent / precision for kind, artifact in of_shape.items()}
            models = {
                kind: SweetModelForSequenceClassification.from_pretrained(
                    folder, backend="native", threads=options.threads
                )
                for kind, folder in folders.items()
            }
            figures: dict[str, Any] = {"megabytes": {kind: megabytes(folder) for kind, folder in folders.items()}}
            for rows in BATCHES:
                figures[f"batch {rows}"] = measure(contenders(models, rows, options.tokens), REPEATS[rows], rows)
            result["shapes"][shape][precision] = figures
            print(shape, precision, figures, flush=True)
    print(write_result("probes", result))


def contenders(models: dict[str, SweetModelForSequenceClassification], rows: int, tokens: int) -> dict[str, Any]:
    """Returns name → a function that runs one batch, for both kinds of exits, with and without probes."""
    functions = {}
    for kind, model in models.items():
        exits = len(model.artifact.exits)
        below_1 = (1 - 1e-7,) * (exits - 1)
        policies = {
            NO_PROBES: Policy((1.0,) * (exits - 1), (1.0,) * exits),
            ALL_PROBES: Policy(below_1, (FLATTENING,) * exits),
        }
        batch = random_batch(model.artifact, rows, tokens)
        for name, policy in policies.items():
            functions[f"{kind}, {name}"] = functools.partial(model.executor.run, batch, policy, rows)
    return functions


def megabytes(folder: Path) -> float:
    """Returns the size of an artifact's weights."""
    names = {file.name for file in folder.glob("*.safetensors")} - {"fingerprints.safetensors"}
    return round(sum((open_artifact(folder).directory / name).stat().st_size for name in names) / 1e6, 1)


if __name__ == "__main__":
    main()
