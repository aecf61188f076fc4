"""Compares exported files with the subgraphs that they were written from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from itrex_sweet.artifact import INT8
from itrex_sweet.errors import ExportError
from itrex_sweet.export.graphs import Graph

ADVICE = "Try another format, and report this error with the output of `itrex-sweet info`."
# Root mean square error relative to that of the values. In INT8, inputs near a rounding boundary may differ by a step.
TOLERANCE = {"float32": 1e-4, INT8: 5e-2}


def check_file(
    writer: ModuleType,
    graph: Graph,
    path: Path,
    inputs: Mapping[str, torch.Tensor],
    expected: torch.Tensor,
    precision: str,
    mask: torch.Tensor | None = None,
) -> None:
    """Runs a file and compares its output.

    Args:
        writer: module of the format.
        inputs: inputs of the file by name.
        expected: output of the subgraph.
        precision: of the artifact.
        mask: (rows, length) bool, of the tokens to compare, for states.

    Raises:
        ExportError: the file does not run, or its output differs by more than the tolerance.
    """
    try:
        actual = writer.load(path)(inputs)
    except Exception as error:  # the runtime may raise any type
        raise ExportError(f"the file of {graph.name} does not run: {error}. {ADVICE}") from error
    relative_error, tolerance = _relative_error(actual, expected, mask), TOLERANCE[precision]
    if not relative_error <= tolerance:
        raise ExportError(
            f"the file of {graph.name} has a relative error of {relative_error:.1e}, above {tolerance:.0e}. {ADVICE}"
        )


def _relative_error(actual: np.ndarray, expected: torch.Tensor, mask: torch.Tensor | None) -> float:
    """Returns the root mean square error relative to the expected values, without padding."""
    expected = expected.numpy()
    if actual.shape != expected.shape:
        return float("inf")
    kept = slice(None) if mask is None else mask.numpy()
    difference, size = (float(np.square(values[kept]).mean()) for values in (actual - expected, expected))
    return (difference / size) ** 0.5 if size else difference
