"""Subgraphs as TorchScript, for torch without Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from itrex_sweet.export.graphs import Graph


def require() -> None:
    """Torch is always there."""


def write(graph: Graph, inputs: Mapping[str, torch.Tensor], path: Path) -> tuple[str, ...]:
    """Traces a subgraph, batch and length left open.

    Args:
        inputs: by name, in order, to trace with.

    Returns:
        names of the inputs of the file, which go by place.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # warnings of torch about its tracer
        torch.jit.save(torch.jit.trace(graph.module, tuple(inputs.values()), check_trace=False), str(path))
    return tuple(inputs)


def load(path: Path) -> Callable[[Mapping[str, torch.Tensor]], np.ndarray]:
    """A written subgraph as a function of its inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(path))

    def run(inputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            return module(*inputs.values()).numpy()

    return run
