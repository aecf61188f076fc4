"""Subgraphs as ONNX, for ONNX Runtime and whatever else reads it.

Torch's exporter by TorchScript is taken: it stands in torch 2.8 as in 2.13, and needs no package besides `onnx`.
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

OPSET = 17  # the first with LayerNormalization


def require() -> None:
    """Checks that ONNX files can be written and run here.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        extras.require(package, "ONNX export")


def write(graph: Graph, inputs: Mapping[str, torch.Tensor], path: Path) -> tuple[str, ...]:
    """Traces a subgraph, batch and length left open, and writes it.

    Args:
        inputs: by name, in order, to trace with.

    Returns:
        names of the inputs of the file; one that the subgraph does not read is left out.

    Raises:
        ExportError: the exporter has no ONNX for something in it.
    """
    import onnx

    axes = {
        port.name: {axis: size for axis, size in enumerate(port.shape) if isinstance(size, str)}
        for port in (*graph.inputs, graph.output)
    }
    noisy = logging.getLogger("torch.onnx")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # warnings of torch about its exporter
            torch.onnx.export(
                onnx_module(graph.module),
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=[graph.output.name],
                dynamic_axes=axes,
                opset_version=OPSET,
                do_constant_folding=False,  # whoever loads the file folds; here it would make floats of 8-bit weights
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ExportError(
            f"{graph.name} cannot be written as ONNX: {error}. TorchScript (--format torchscript) may do."
        ) from error
    finally:
        noisy.setLevel(level)
    return tuple(value.name for value in onnx.load(str(path), load_external_data=False).graph.input)


def load(path: Path) -> Callable[[Mapping[str, torch.Tensor]], np.ndarray]:
    """A written subgraph as a function of its inputs, by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Without VNNI, products of 8-bit numbers would overflow.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
