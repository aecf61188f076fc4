"""The inference engines that early exit is compared with, one per file, each in its best configuration.

`ENGINES` maps the displayed name to `module:class`. A module imports its library when the engine is created.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peers.base import Engine

ENGINES = {
    "torch fp32": "torch_eager:TorchFloat32",
    "torch bf16": "torch_eager:TorchBfloat16",
    "torch.compile bf16": "torch_compiled:TorchCompiled",
    "OpenVINO INT8": "openvino_int8:OpenVinoInt8",
    "ONNX Runtime INT8": "onnxruntime_int8:OnnxRuntimeInt8",
    "ONNX Runtime fp32": "onnxruntime_int8:OnnxRuntimeFloat32",
    "CTranslate2 INT8": "ctranslate2_int8:CTranslate2Int8",
    "IPEX INT8": "ipex_int8:IpexInt8",
}
REFERENCE = "torch fp32"


def engine_class(name: str) -> type[Engine]:
    """Returns the class of an engine.

    Raises:
        ImportError: its library is not installed.
    """
    module, _, attribute = ENGINES[name].partition(":")
    return getattr(importlib.import_module(f"peers.{module}"), attribute)
