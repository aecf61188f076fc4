"""Writing an artifact's subgraphs, whole or not at all, each tried before it is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from itrex_sweet.artifact import INT8, Artifact, open_artifact
from itrex_sweet.artifact.snapshot import read_json
from itrex_sweet.artifact.staging import require_writable, staged
from itrex_sweet.errors import ArtifactError, ConfigError, ExportError
from itrex_sweet.export import onnx, torchscript
from itrex_sweet.export.description import description, formula_of
from itrex_sweet.export.graphs import Subgraphs, subgraphs_of, tokens_like, walk
from itrex_sweet.export.layout import DESCRIPTION_FILE, FORMATS, SUFFIXES

_WRITERS: dict[str, ModuleType] = {"onnx": onnx, "torchscript": torchscript}

# Traced with one shape, tried with another.
_TRACED_LENGTHS, _TRIED_LENGTHS = (8, 5, 3), (13, 1, 9, 4)
# Root mean square of what a file is off, against that of the values. In INT8, rounding may put an input on the other
# side of a half.
_TOLERANCE = {"float32": 1e-4, INT8: 5e-2}

_ADVICE = "Try the other format, and report it with the versions that `itrex-sweet info` prints."


def export_subgraphs(
    source: str | os.PathLike | Artifact, output: str | os.PathLike, *, format: str = "onnx"
) -> dict[str, object]:
    """Writes one file per subgraph (`embed`, `probe_1`, `advance_1_4`, …) and `subgraphs.json`, how they chain.

    Every file is run on rows of another shape than it was traced with, and compared with the subgraph, before the
    folder is changed.

    Args:
        source: an artifact, or its folder; a cascade gives the subgraphs of each of its models.
        output: made if missing; files of an earlier export are replaced, others are left alone.
        format: `"onnx"` or `"torchscript"`.

    Returns:
        what `subgraphs.json` holds.

    Raises:
        ArtifactError: the source is no artifact, or the output cannot be written; what it held before is untouched.
        MissingExtraError: a package that the format needs is not installed.
        ConfigError: an unknown format, or a criterion that other runtimes cannot be told.
        ExportError: a subgraph cannot be written in this format, or its file answers otherwise.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format!r}: choose one of {', '.join(FORMATS)}.")
    writer, output = _WRITERS[format], Path(output)
    artifact = source if isinstance(source, Artifact) else open_artifact(source)
    formula_of(artifact)
    writer.require()
    require_writable(output)
    subgraphs = subgraphs_of(artifact)
    with staged(output, _earlier_files) as staging:
        files = {}
        for graph, inputs, _ in walk(subgraphs, tokens_like(subgraphs, _TRACED_LENGTHS)):
            path = staging / f"{graph.name}{SUFFIXES[format]}"
            files[graph.name] = path, writer.write(graph, inputs, path)
        _try(subgraphs, writer, files, _TOLERANCE[artifact.precision])
        described = description(artifact, subgraphs, format, files)
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
        (staging / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return described


def _earlier_files(output: Path) -> list[str]:
    """Files of an export that lies there already; the new one may name others."""
    try:
        named = [part["file"] for part in read_json(output / DESCRIPTION_FILE)["subgraphs"].values()]
    except (ArtifactError, AttributeError, KeyError, TypeError):
        return []
    return [name for name in named if isinstance(name, str) and Path(name).name == name]


def _try(
    subgraphs: Subgraphs, writer: ModuleType, files: dict[str, tuple[Path, tuple[str, ...]]], tolerance: float
) -> None:
    """Compares every file with the subgraph it was made from."""
    tokens = tokens_like(subgraphs, _TRIED_LENGTHS)
    for graph, inputs, output in walk(subgraphs, tokens):
        path, taken = files[graph.name]
        try:
            got = writer.load(path)({name: inputs[name] for name in taken})
        except Exception as error:  # whatever the other runtime raises
            raise ExportError(f"the file of {graph.name} does not run: {error}. {_ADVICE}") from error
        off = _relative_error(got, output, tokens["mask"] if graph.exit_ is None else None)
        if not off <= tolerance:
            raise ExportError(
                f"the file of {graph.name} is off by {off:.1e} of its values, and {tolerance:.0e} is allowed. {_ADVICE}"
            )


def _relative_error(got: np.ndarray, expected: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Root mean square of the difference against that of what was expected, at tokens only."""
    expected = expected.numpy()
    if got.shape != expected.shape:
        return float("inf")
    kept = slice(None) if mask is None else mask.numpy()
    difference, size = (float(np.square(values[kept]).mean()) for values in (got - expected, expected))
    return (difference / size) ** 0.5 if size else difference
