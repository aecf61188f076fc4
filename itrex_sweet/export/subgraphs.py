"""Exports an artifact's subgraphs atomically, after validating each file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType

import torch

from itrex_sweet.artifact import Artifact, open_artifact
from itrex_sweet.artifact.snapshot import read_json
from itrex_sweet.artifact.staging import require_writable, staged
from itrex_sweet.errors import ArtifactError, ConfigError
from itrex_sweet.export import full_depth, onnx, openvino, torchscript
from itrex_sweet.export.description import description, formula_of
from itrex_sweet.export.graphs import Subgraphs, example_tokens, run_subgraphs, subgraphs_of
from itrex_sweet.export.layout import DEFAULT_FORMAT, DESCRIPTION_FILE, FORMATS, SUFFIXES
from itrex_sweet.export.validation import check_file

_WRITERS: dict[str, ModuleType] = {"onnx": onnx, "openvino": openvino, "torchscript": torchscript}

# Lengths for tracing and for validation.
_TRACING_LENGTHS, _VALIDATION_LENGTHS = (8, 5, 3), (13, 1, 9, 4)


def export_subgraphs(
    source: str | os.PathLike | Artifact, output: str | os.PathLike, *, format: str = DEFAULT_FORMAT
) -> dict[str, object]:
    """Writes one file per subgraph (`embed`, `probe_1`, `advance_1_4`, …), and `subgraphs.json`, which describes them.

    Each file is validated on inputs of another shape than it was traced with before the folder is changed.

    Args:
        source: an artifact or its folder; for a cascade, the subgraphs of each model are written.
        output: folder, created if missing; files of an earlier export are replaced, others are kept.
        format: `"onnx"`, `"openvino"` or `"torchscript"`. With `"openvino"`, the folder also has the model at full
            depth, as optimum-intel's `OVModelForSequenceClassification` loads it.

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
        example = example_tokens(subgraphs, _TRACING_LENGTHS)
        for graph, inputs, _ in run_subgraphs(subgraphs, example):
            path = staging / f"{graph.name}{SUFFIXES[format]}"
            files[graph.name] = path, writer.write(graph, inputs, path)
        tokens, logits = _validate(subgraphs, writer, files, artifact.precision)
        described = description(artifact, subgraphs, format, files)
        if format == "openvino":
            described["full_depth"] = full_depth.write(artifact, subgraphs, staging, example, tokens, logits)
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
        (staging / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
    return described


def _earlier_files(output: Path) -> list[str]:
    """Returns the files of an earlier export in the folder."""
    try:
        described = read_json(output / DESCRIPTION_FILE)
        parts = [*described["subgraphs"].values(), *filter(None, [described.get("full_depth")])]
        named = [
            name for part in parts for name in (part["file"], part.get("weights_file"), *part.get("other_files", []))
        ]
    except (ArtifactError, AttributeError, KeyError, TypeError):
        return []
    return [name for name in named if isinstance(name, str) and Path(name).name == name]


def _validate(
    subgraphs: Subgraphs, writer: ModuleType, files: dict[str, tuple[Path, tuple[str, ...]]], precision: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Compares each file with its subgraph; returns the tokens and the logits of the last exit."""
    tokens = example_tokens(subgraphs, _VALIDATION_LENGTHS)
    for graph, inputs, output in run_subgraphs(subgraphs, tokens):
        path, names = files[graph.name]
        mask = tokens["mask"] if graph.exit_ is None else None
        check_file(writer, graph, path, {name: inputs[name] for name in names}, output, precision, mask)
    return tokens, output
