"""Writes subgraphs as TorchScript, for libtorch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from itrex_sweet.export.graphs import Graph


def require_packages() -> None:
    """Requires nothing: torch is always installed."""


def write(graph: Graph, inputs: Mapping[str, torch.Tensor], path: Path) -> tuple[str, ...]:
    """Traces a subgraph with dynamic batch size and length, and writes it.

    Args:
        inputs: example inputs by name, in order.

    Returns:
        names of the inputs of the file, in order.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of data-dependent control flow
        traced = torch.jit.trace(graph.module, tuple(inputs.values()), check_trace=False)
    contents = io.BytesIO()  # torch ends the process if it cannot write a file, for instance on a full disk
    torch.jit.save(traced, contents)
    path.write_bytes(contents.getbuffer())
    return tuple(inputs)


def load(path: Path) -> Callable[[Mapping[str, torch.Tensor]], np.ndarray]:
    """Loads a file as a function of its inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(path))

    def run(inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            return module(*inputs.values()).numpy()

    return run
