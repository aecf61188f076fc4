"""Writes the model at full depth as the folder that optimum-intel's `OVModelForSequenceClassification` loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from itrex_sweet.artifact import CASCADE, Artifact
from itrex_sweet.artifact.layout import CONFIG_FILE, is_tokenizer_file
from itrex_sweet.export import openvino
from itrex_sweet.export.description import describe_file
from itrex_sweet.export.graphs import Subgraphs
from itrex_sweet.export.validation import check_file


def write(
    artifact: Artifact,
    subgraphs: Subgraphs,
    folder: Path,
    example: Mapping[str, torch.Tensor],
    tokens: Mapping[str, torch.Tensor],
    expected: torch.Tensor,
) -> dict[str, Any]:
    """Writes the model, its config and its tokenizer; compares it with the subgraphs.

    Args:
        example: tokens for tracing.
        tokens: tokens for validation.
        expected: logits of the last exit for these.

    Returns:
        the description of the files.

    Raises:
        ExportError: an operator is not supported, or the file fails the comparison.
    """
    graph, path = subgraphs.full_depth, folder / openvino.FULL_DEPTH_FILE
    names = [spec.name for spec in graph.inputs]
    taken = openvino.write(graph, _named(example, names), path)
    check_file(openvino, graph, path, _named(tokens, names), expected, artifact.precision)
    stage = artifact.stages[-1] if artifact.architecture == CASCADE else artifact
    config = {key: value for key, value in stage.config.items() if key != "sweet"}
    others = {CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode()}
    others |= {name: artifact.read_file(name) for name in artifact.files if is_tokenizer_file(name)}
    for name, contents in others.items():
        (folder / name).write_bytes(contents)
    return {**describe_file(graph, path, taken), "other_files": sorted(others)}


def _named(tokens: Mapping[str, torch.Tensor], names: list[str]) -> dict[str, torch.Tensor]:
    available = {**tokens, "attention_mask": tokens["mask"].long()}
    return {name: available[name] for name in names}
