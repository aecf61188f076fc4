"""Print versions, machine and available backends; with DIR, the settings of that artifact."""

from __future__ import annotations

import argparse
import json
from importlib import metadata
from typing import TYPE_CHECKING, Any

from itrex_sweet.families import is_of_private_layer

if TYPE_CHECKING:
    from itrex_sweet.artifact import Artifact

SUMMARY = "versions, machine and backends, or what an artifact is"

_OPTIONAL_PACKAGES = (
    "accelerate",
    "datasets",
    "optimum",
    "peft",
    "matplotlib",
    "neural-compressor-pt",
    "intel-extension-for-pytorch",
    "optimum-intel",
    "openvino",
    "onnxruntime",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `itrex-sweet info`."""
    parser.add_argument("directory", nargs="?", metavar="DIR", help="an artifact, or its name on the Hub")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Prints facts about the environment, or an artifact."""
    facts = environment() if args.directory is None else _artifact(args.directory)
    print(json.dumps(facts, indent=2, ensure_ascii=False) if args.json else _lines(facts))
    return 0


def environment() -> dict[str, Any]:
    """Returns versions, machine, backends and optional packages, as plain JSON types."""
    from itrex_sweet.artifact import library_versions
    from itrex_sweet.runtime.backends import BACKENDS, unavailable_reason
    from itrex_sweet.runtime.machine import INSTRUCTION_SETS, Machine
    from itrex_sweet.runtime.native import cores, library
    from itrex_sweet.version import __version__

    machine = Machine.here().to_dict()
    has = machine.pop("instruction_sets")
    return {
        "versions": {**library_versions(), "itrex-sweet": __version__},
        "machine": machine,
        "threads": {"used": cores.default_threads(), "limited by": cores.thread_limits()},
        "instruction sets": {name: name in has for name in INSTRUCTION_SETS},
        "native engine": {
            **{isa: reason or "usable" for isa, reason in library.available().items()},
            "would be taken": _native_isa(),
        },
        "backends": {name: unavailable_reason(name) or "usable" for name in BACKENDS},
        "other packages": {name: _version(name) for name in _OPTIONAL_PACKAGES},
    }


def _native_isa() -> str:
    """Returns the instruction set of the native engine, or the reason why there is none."""
    from itrex_sweet.errors import BackendUnavailable
    from itrex_sweet.runtime.native import library

    try:
        return library.load().isa
    except BackendUnavailable as error:
        return f"none: {error}"


def _artifact(name: str) -> dict[str, Any]:
    from itrex_sweet.artifact import INT8, open_artifact
    from itrex_sweet.hub import fetch

    artifact = open_artifact(fetch(name))
    config = artifact.config
    return {
        "directory": str(artifact.directory),
        "architecture": artifact.architecture.replace("_", "-"),
        "family": config.get("model_type"),
        "depth": artifact.exits[-1],
        "hidden size": config.get("hidden_size", config.get("dim")),
        "task": artifact.task.name,
        "labels": [str(label) for label in (config.get("id2label") or {}).values()],
        "exits": list(artifact.exits),
        "mode": artifact.mode,
        "private layers": _private_layers(artifact),
        "layers run": list(artifact.layers_run),
        "policy": artifact.policy.to_dict(),
        "precision": artifact.precision,
        **({"word embeddings": artifact.embeddings_precision} if artifact.precision == INT8 else {}),
        "tokenizer": any((artifact.directory / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")),
        "texts encoded by": _reader(artifact),
        "bytes": _sizes(artifact),
        "calibration": _calibration(artifact),
        "provenance": dict(artifact.provenance),
    }


def _reader(artifact: Artifact) -> str | None:
    """Returns the name of the tokenizer that encodes texts, and why not the native one; `None` without a tokenizer."""
    from itrex_sweet.errors import SweetError
    from itrex_sweet.tokenization import TextReader
    from itrex_sweet.tokenization.stored import run_tokenizer_of

    try:
        tokenizer = run_tokenizer_of(artifact)
    except SweetError as error:
        return f"unknown: {error}"
    if tokenizer is None:
        return None
    reader = TextReader(tokenizer, max_tokens=None, padding_idx=None)
    return reader.reader_name if reader.reader_reason is None else f"{reader.reader_name}: {reader.reader_reason}"


def _private_layers(artifact: Artifact) -> dict[str, Any]:
    """Returns the exits with private layers and the bytes of their weights; empty if there are none."""
    if not artifact.private_exits:
        return {}
    stored = sum(tensor.nbytes for name, tensor in artifact.stored_tensors().items() if is_of_private_layer(name))
    return {"exits": list(artifact.private_exits), "bytes": stored}


def _calibration(artifact: Artifact) -> dict[str, Any]:
    """Returns a summary of the calibration, with the machine that milliseconds were measured on."""
    names = ("created", "source", "backend", "precision", "budget", "bound", "rows_testing", "switched_off")
    facts = {name: artifact.calibration[name] for name in names if artifact.calibration.get(name)}
    if against := artifact.calibration.get("against"):
        facts["against"] = f"{against.get('name')} ({against.get('kind')}, SHA-256 {str(against.get('sha256'))[:12]})"
    if artifact.costs:
        facts["milliseconds measured on"] = f"{artifact.costs['processor']}, {artifact.costs['threads']} threads"
    return facts


def _sizes(artifact: Artifact) -> dict[str, int]:
    directory = artifact.directory
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size for path in sorted(directory.rglob("*.safetensors"))
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lines(facts: dict[str, Any], indent: str = "") -> str:
    """Formats one fact per line, those of a group indented below its name."""
    width = max((len(str(name)) for name, value in facts.items() if not isinstance(value, dict)), default=0)
    lines = []
    for name, value in facts.items():
        shown = str(name).replace("_", " ")
        if isinstance(value, dict) and value:
            lines += [f"{indent}{shown}", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{shown.ljust(width)}  {_shown(value)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
