"""The content of `subgraphs.json`: the information that another runtime needs to run the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.artifact import INT8, Artifact, library_versions
from itrex_sweet.artifact.layout import sha256
from itrex_sweet.errors import ConfigError
from itrex_sweet.export.graphs import Graph, Subgraphs, TensorSpec
from itrex_sweet.export.layout import DESCRIPTION_FORMAT, SCHEMA_VERSION, WEIGHTS_SUFFIX
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

# (task, criterion) → formula
_FORMULAS = {
    (SINGLE_LABEL, "max_probability"): "max(softmax(logits / temperature))",
    (MULTI_LABEL, "max_probability"): (
        "min over labels of 1 / (1 + exp(-|logit / temperature - log(t / (1 - t))|)), t: `label_thresholds`, or 0.5; a "
        "label is on if its probability 1 / (1 + exp(-logit / temperature)) exceeds t"
    ),
    (REGRESSION, "learned"): "1 / (1 + exp(-second output)); the first output is the value",
}

_INSTRUCTIONS = (
    "Store arrays by name: first the tokens, then the output of each subgraph under the name in `becomes`.",
    "Run the subgraphs in the order of `chain`. Each takes the arrays named in its `inputs`: ONNX and OpenVINO files "
    "by name, TorchScript files by position.",
    "After a probe, compute confidences with the exit's temperature in `policy` (temperatures and thresholds are in "
    "the order of `exits`). A row whose confidence is greater than the exit's threshold leaves with these logits: "
    "remove it from all arrays, so that nothing more is computed for it. At the last exit, which has no threshold, and "
    "at the exit with the index `deepest` in `policy`, if present, all remaining rows leave. No row leaves at an exit "
    "with threshold 1: its probe need not be run.",
)

_TOKENS = {
    "input_ids": "ids of the tokenizer, padded on the right with any id",
    "token_type_ids": "of the tokenizer, or zeros",
    "positions": "0, 1, 2, ... along each row; any position in the padding",
    "mask": "true for tokens, false for padding; always true in the first column",
}


def description(
    artifact: Artifact, subgraphs: Subgraphs, format_: str, files: Mapping[str, tuple[Path, tuple[str, ...]]]
) -> dict[str, Any]:
    """Returns the description in plain JSON types.

    Args:
        files: name of each subgraph → its file and the names of its inputs.

    Raises:
        ConfigError: the policy's criterion is not a formula of one exit's logits.
    """
    return {
        "format": DESCRIPTION_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "kind": format_,
        "family": artifact.config.get("model_type"),
        "architecture": artifact.architecture,
        "precision": artifact.precision,
        "exits": list(artifact.exits),
        "task": artifact.task.name,
        "labels": list(artifact.label_names),
        "max_tokens": subgraphs.max_tokens,
        "policy": {**artifact.policy.to_dict(), "confidence": formula_of(artifact)},
        "how": [*_INSTRUCTIONS, *_notes(artifact, format_)],
        "tokens": {**_TOKENS, **_positions(subgraphs)},
        "chain": [
            {"run": graph.name, **({} if graph.exit_ is None else {"exit": graph.exit_})} for graph in subgraphs.graphs
        ],
        "subgraphs": {graph.name: describe_file(graph, *files[graph.name]) for graph in subgraphs.graphs},
        "versions": library_versions(),
    }


def formula_of(artifact: Artifact) -> str:
    """Returns the formula of the confidence.

    Raises:
        ConfigError: the criterion is not a formula of one exit's logits.
    """
    task, policy = artifact.task.name, artifact.policy
    if (task, policy.criterion) not in _FORMULAS or policy.target_label is not None:
        known = [criterion for named, criterion in _FORMULAS if named == task]
        target = "" if policy.target_label is None else f" with target_label={policy.target_label}"
        raise ConfigError(
            f"criterion={policy.criterion!r}{target} cannot be exported; write the artifact with {' or '.join(known)}."
        )
    return _FORMULAS[task, policy.criterion]


def _notes(artifact: Artifact, format_: str) -> list[str]:
    """Returns notes on INT8 files."""
    if artifact.precision != INT8:
        return []
    notes = []
    if format_ == "onnx":
        notes.append(
            "On x86-64 without VNNI, 8-bit products of ONNX Runtime saturate, unless its session option "
            '`session.x64quantprecision` is "1", which is slower.'
        )
    if format_ == "openvino":
        notes.append("On x86-64 without VNNI, 8-bit products of OpenVINO saturate.")
    if artifact.quantization.get("recipe") == "dynamic":
        notes.append(
            "Inputs are quantized dynamically per row, which these files compute in float32: results are exact, but "
            "no faster than float32. Use the recipes `static` or `smooth` for speed."
        )
    return notes


def _positions(subgraphs: Subgraphs) -> dict[str, str]:
    if subgraphs.padding_idx is None:
        return {}
    return {
        "positions": f"0, 1, 2, ... along each row, where a token of id {subgraphs.padding_idx} is not counted and "
        "has -1; any position in the padding"
    }


def describe_file(graph: Graph, path: Path, taken: tuple[str, ...]) -> dict[str, Any]:
    """Describes a file and, for OpenVINO, its file of weights.

    Args:
        taken: names of the inputs of the file.
    """
    weights = path.with_suffix(WEIGHTS_SUFFIX)
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        **(
            {"weights_file": weights.name, "weights_bytes": weights.stat().st_size, "weights_sha256": sha256(weights)}
            if weights.is_file()
            else {}
        ),
        "inputs": [_describe_tensor(spec) for spec in graph.inputs if spec.name in taken],
        "outputs": [_describe_tensor(graph.output)],
    }


def _describe_tensor(spec: TensorSpec) -> dict[str, Any]:
    becomes = {} if spec.becomes is None else {"becomes": spec.becomes}
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), **becomes}
