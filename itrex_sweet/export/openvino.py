"""Writes subgraphs as OpenVINO models (IR: an XML file and a file of weights)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from itrex_sweet import extras
from itrex_sweet.errors import ExportError
from itrex_sweet.export.graphs import Graph

FULL_DEPTH_FILE = "openvino_model.xml"  # the name that optimum-intel loads


def require_packages() -> None:
    """Checks that OpenVINO is installed.

    Raises:
        MissingExtraError: it is not.
    """
    extras.require("openvino", "OpenVINO export")


def write(graph: Graph, inputs: Mapping[str, torch.Tensor], path: Path) -> tuple[str, ...]:
    """Converts a subgraph with dynamic batch size and length, and writes it in its own precision.

    Args:
        inputs: example inputs by name, in order.

    Returns:
        names of the inputs of the file, in order.

    Raises:
        ExportError: OpenVINO does not support an operator.
        OSError: the file cannot be written.
    """
    import openvino

    from itrex_sweet.runtime.dense.openvino import openvino_model

    sizes = {spec.name: tuple(-1 if isinstance(size, str) else size for size in spec.shape) for spec in graph.inputs}
    try:
        model = openvino_model(graph.module, tuple(inputs.values()), sizes, graph.output.name)
    except RuntimeError as error:
        raise ExportError(
            f"{graph.name} cannot be written as an OpenVINO model: {error}. Try ONNX (--format onnx)."
        ) from error
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"{path.name}: {error}") from error
    return tuple(inputs)


def load(path: Path) -> Callable[[Mapping[str, torch.Tensor]], np.ndarray]:
    """Loads a file as a function of its inputs by name."""
    import openvino

    from itrex_sweet.runtime.dense.openvino import compile_on_cpu

    compiled = compile_on_cpu(openvino.Core().read_model(path), torch.get_num_threads())
    return lambda inputs: compiled({name: value.numpy() for name, value in inputs.items()})[0]
