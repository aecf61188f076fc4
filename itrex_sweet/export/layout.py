"""File names and formats of an export. Imports no torch."""

from __future__ import annotations

DESCRIPTION_FILE = "subgraphs.json"
DESCRIPTION_FORMAT = "itrex-sweet subgraphs"
SCHEMA_VERSION = 1

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
FORMATS = tuple(SUFFIXES)
DEFAULT_FORMAT = "onnx"
WEIGHTS_SUFFIX = ".bin"  # of the weights beside an OpenVINO file
