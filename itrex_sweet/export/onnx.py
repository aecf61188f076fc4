"""Writes subgraphs as ONNX.

Uses the TorchScript-based exporter of torch, which exists in torch 2.8 and 2.13 and needs only the package `onnx`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from itrex_sweet import extras
from itrex_sweet.errors import ExportError
from itrex_sweet.export.graphs import Graph
from itrex_sweet.export.onnx_int8 import onnx_module

OPSET = 17  # first version with LayerNormalization


def require_packages() -> None:
    """Checks that ONNX files can be written and run here.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        extras.require(package, "ONNX export")


def write(graph: Graph, inputs: Mapping[str, torch.Tensor], path: Path) -> tuple[str, ...]:
    """Traces a subgraph with dynamic batch size and length, and writes it.

    Args:
        inputs: example inputs by name, in order.

    Returns:
        names of the inputs of the file, without those that the subgraph does not use.

    Raises:
        ExportError: the exporter does not support an operator.
    """
    import onnx

    axes = {
        spec.name: {axis: size for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in (*graph.inputs, graph.output)
    }
    exporter_logger = logging.getLogger("torch.onnx")
    level = exporter_logger.level
    exporter_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter is deprecated
            torch.onnx.export(
                onnx_module(graph.module),
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=[graph.output.name],
                dynamic_axes=axes,
                opset_version=OPSET,
                do_constant_folding=False,  # folding would convert 8-bit weights to float
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ExportError(
            f"{graph.name} cannot be written as ONNX: {error}. Try TorchScript (--format torchscript)."
        ) from error
    finally:
        exporter_logger.setLevel(level)
    return tuple(value.name for value in onnx.load(str(path), load_external_data=False).graph.input)


def load(path: Path) -> Callable[[Mapping[str, torch.Tensor]], np.ndarray]:
    """Loads a file as a function of its inputs by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Without VNNI, 8-bit products would saturate.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
