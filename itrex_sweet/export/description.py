"""What stands in `subgraphs.json`: everything that another runtime needs to chain the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.artifact import INT8, Artifact, library_versions
from itrex_sweet.artifact.layout import sha256
from itrex_sweet.errors import ConfigError
from itrex_sweet.export.graphs import Graph, Port, Subgraphs
from itrex_sweet.export.layout import DESCRIPTION_FORMAT, SCHEMA_VERSION

_FORMULAS = {"max_probability": "max(softmax(logits / temperature))"}

_HOW = (
    "Keep the arrays by name: the tokens to begin with, then what each subgraph gives, under the name in `becomes`.",
    "Run the subgraphs in the order of `chain`. Each takes the arrays named in its `inputs`; files of ONNX take them "
    "by name, those of TorchScript by place.",
    "After a probe, with the exit's temperature and threshold in `policy` (both by place among `exits`): a row whose "
    "confidence is greater than the threshold is answered by these logits. Drop it from every array, so that nothing "
    "more is computed for it. The last exit has no threshold and answers every row left; so does the exit whose place "
    "is `deepest` in `policy`, if it is there. An exit whose threshold is 1 lets nobody go: its probe need not run.",
)

_TOKENS = {
    "input_ids": "ids of the tokenizer, padded on the right with any id",
    "token_type_ids": "as the tokenizer gives them, else zeros",
    "positions": "0, 1, 2, ... along each row; any position in the padding",
    "mask": "true where a token stands; the first column always",
}


def description(
    artifact: Artifact, subgraphs: Subgraphs, format_: str, files: Mapping[str, tuple[Path, tuple[str, ...]]]
) -> dict[str, Any]:
    """The description, in plain JSON types.

    Args:
        files: name of each subgraph → its file and the names of the inputs that it takes.

    Raises:
        ConfigError: the policy's criterion is more than a formula over one exit's logits.
    """
    return {
        "format": DESCRIPTION_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "kind": format_,
        "family": artifact.config.get("model_type"),
        "architecture": artifact.architecture,
        "precision": artifact.precision,
        "exits": list(artifact.exits),
        "labels": list(artifact.label_names),
        "max_tokens": subgraphs.max_tokens,
        "policy": {**artifact.policy.to_dict(), "confidence": formula_of(artifact)},
        "how": [*_HOW, *_notes(artifact, format_)],
        "tokens": {**_TOKENS, **_positions(subgraphs)},
        "chain": [
            {"run": graph.name, **({} if graph.exit_ is None else {"exit": graph.exit_})} for graph in subgraphs.graphs
        ],
        "subgraphs": {graph.name: _of_file(graph, *files[graph.name]) for graph in subgraphs.graphs},
        "versions": library_versions(),
    }


def formula_of(artifact: Artifact) -> str:
    """How confidence is read off an exit's logits.

    Raises:
        ConfigError: it takes more than these logits.
    """
    criterion = artifact.policy.criterion
    if criterion not in _FORMULAS:
        raise ConfigError(
            f"criterion={criterion!r} cannot be described for other runtimes yet; write the artifact with one of "
            f"{', '.join(_FORMULAS)}."
        )
    return _FORMULAS[criterion]


def _notes(artifact: Artifact, format_: str) -> list[str]:
    """What to know about 8 bits."""
    if artifact.precision != INT8:
        return []
    notes = []
    if format_ == "onnx":
        notes.append(
            "On x86-64 without VNNI, ONNX Runtime lets products of 8-bit numbers overflow, unless its session option "
            '`session.x64quantprecision` is "1", which makes it slower.'
        )
    if artifact.quantization.get("recipe") == "dynamic":
        notes.append(
            "Inputs have a scale per row, and these files compute in float32 on whole numbers: the right answers, and "
            "no faster than float32. The recipes `static` and `smooth` are."
        )
    return notes


def _positions(subgraphs: Subgraphs) -> dict[str, str]:
    if subgraphs.padding_idx is None:
        return {}
    return {
        "positions": f"0, 1, 2, ... along each row, where a token of id {subgraphs.padding_idx} is not counted and "
        "has -1; any position in the padding"
    }


def _of_file(graph: Graph, path: Path, taken: tuple[str, ...]) -> dict[str, Any]:
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "inputs": [_of_port(port) for port in graph.inputs if port.name in taken],
        "outputs": [_of_port(graph.output)],
    }


def _of_port(port: Port) -> dict[str, Any]:
    becomes = {} if port.becomes is None else {"becomes": port.becomes}
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape), **becomes}
