"""Exports an artifact's subgraphs atomically, after validating each file."""

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
from itrex_sweet.export.graphs import Subgraphs, example_tokens, run_subgraphs, subgraphs_of
from itrex_sweet.export.layout import DESCRIPTION_FILE, FORMATS, SUFFIXES

_WRITERS: dict[str, ModuleType] = {"onnx": onnx, "torchscript": torchscript}

# Lengths for tracing and for validation.
_TRACING_LENGTHS, _VALIDATION_LENGTHS = (8, 5, 3), (13, 1, 9, 4)
# Root mean square error relative to that of the values. In INT8, inputs near a rounding boundary may differ by a step.
_TOLERANCE = {"float32": 1e-4, INT8: 5e-2}

_ADVICE = "Try the other format, and report this error with the output of `itrex-sweet info`."


def export_subgraphs(
    source: str | os.PathLike | Artifact, output: str | os.PathLike, *, format: str = "onnx"
) -> dict[str, object]:
    """Writes one file per subgraph (`embed`, `probe_1`, `advance_1_4`, …), and `subgraphs.json`, which describes them.

    Each file is validated on inputs of another shape than it was traced with before the folder is changed.

    Args:
        source: an artifact or its folder; for a cascade, the subgraphs of each model are written.
        output: folder, created if missing; files of an earlier export are replaced, others are kept.
        format: `"onnx"` or `"torchscript"`.

    Returns:
        the content of `subgraphs.json`.

    Raises:
        ArtifactError: the source is not an artifact, or the output cannot be written, and is then unchanged.
        MissingExtraError: a package that the format needs is not installed.
        ConfigError: an unknown format, or a criterion that cannot be exported.
        ExportError: a subgraph is not supported by this format, or its file fails validation.
    """
    if format not in FORMATS:
        raise ConfigError(f"format={format!r}: choose one of {', '.join(FORMATS)}.")
    writer, output = _WRITERS[format], Path(output)
    artifact = source if isinstance(source, Artifact) else open_artifact(source)
    formula_of(artifact)
    writer.require_packages()
    require_writable(output)
    subgraphs = subgraphs_of(artifact)
    with staged(output, _earlier_files) as staging:
        files = {}
        for graph, inputs, _ in run_subgraphs(subgraphs, example_tokens(subgraphs, _TRACING_LENGTHS)):
            path = staging / f"{graph.name}{SUFFIXES[format]}"
            files[graph.name] = path, writer.write(graph, inputs, path)
        _validate(subgraphs, writer, files, _TOLERANCE[artifact.precision])
        described = description(artifact, subgraphs, format, files)
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
        (staging / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return described


def _earlier_files(output: Path) -> list[str]:
    """Returns the files of an earlier export in the folder."""
    try:
        named = [part["file"] for part in read_json(output / DESCRIPTION_FILE)["subgraphs"].values()]
    except (ArtifactError, AttributeError, KeyError, TypeError):
        return []
    return [name for name in named if isinstance(name, str) and Path(name).name == name]


def _validate(
    subgraphs: Subgraphs, writer: ModuleType, files: dict[str, tuple[Path, tuple[str, ...]]], tolerance: float
) -> None:
    """Compares each file with its subgraph."""
    tokens = example_tokens(subgraphs, _VALIDATION_LENGTHS)
    for graph, inputs, output in run_subgraphs(subgraphs, tokens):
        path, input_names = files[graph.name]
        try:
            actual = writer.load(path)({name: inputs[name] for name in input_names})
        except Exception as error:  # the runtime may raise any type
            raise ExportError(f"the file of {graph.name} does not run: {error}. {_ADVICE}") from error
        relative_error = _relative_error(actual, output, tokens["mask"] if graph.exit_ is None else None)
        if not relative_error <= tolerance:
            raise ExportError(
                f"the file of {graph.name} has a relative error of {relative_error:.1e}, above {tolerance:.0e}. "
                f"{_ADVICE}"
            )


def _relative_error(actual: np.ndarray, expected: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Returns the root mean square error relative to the expected values, without padding."""
    expected = expected.numpy()
    if actual.shape != expected.shape:
        return float("inf")
    kept = slice(None) if mask is None else mask.numpy()
    difference, size = (float(np.square(values[kept]).mean()) for values in (actual - expected, expected))
    return (difference / size) ** 0.5 if size else difference
