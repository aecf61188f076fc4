"""ONNX Runtime, dynamic INT8 or float32, after the transformer optimizer's fusions.

The model is exported with separate attention products, so that the optimizer recognizes them: embeddings with their
norm, attention, skip connection with norm, and GELU with bias are fused to one operation each, which is checked. It
does not recognize the attention of DeBERTa and ModernBERT, whose graphs are optimized by the session only.
Weights are int8 per output channel, and inputs uint8 with a range computed at run time. Reduced range (7 bits) is used
only on processors without VNNI, where 8 bits saturate. All graph optimizations are on, and the memory pattern, which
needs constant shapes, is off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from itrex_sweet.runtime.machine import Machine
from itrex_sweet.runtime.ragged import TokenBatch
from peers.base import INPUTS, PaddedEngine
from peers.converted import converted
from peers.huggingface import example_inputs, plain_model

FILE, OPSET = "model.onnx", 17
FUSED = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")  # model types that the optimizer recognizes
VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


class OnnxRuntimeInt8(PaddedEngine):
    """ONNX Runtime with one session and `threads` intra-op threads."""

    name = "ONNX Runtime INT8"
    packages = ("onnxruntime", "onnx")

    is_quantized = True

    def __init__(self, model: Path, calibration: TokenBatch, threads: int):
        import onnxruntime

        super().__init__(model, calibration, threads)
        self.reduced = not VNNI & set(Machine.here().instruction_sets)
        precision = (" 7 bits" if self.reduced else "") if self.is_quantized else " fp32"
        label = f"onnxruntime {onnxruntime.__version__}{precision}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.enable_mem_pattern = False
        self.folder = converted(label, model, None, self._convert)
        self._session = onnxruntime.InferenceSession(
            str(self.folder / FILE), options, providers=["CPUExecutionProvider"]
        )
        ports = self._session.get_inputs()
        self._types = {port.name: np.int32 if "int32" in port.type else np.int64 for port in ports}

    def arrange(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the inputs by name, with the types of the session (int32 after the optimizer)."""
        named = dict(zip(INPUTS, (ids, mask, types), strict=True))
        return {name: named[name].astype(type_, copy=False) for name, type_ in self._types.items()}

    def forward(self, inputs: Any) -> np.ndarray:
        """Computes logits."""
        return self._session.run(None, inputs)[0]

    def _convert(self, folder: Path) -> None:
        import onnx
        import torch
        from onnxruntime.quantization import QuantType, quantize_dynamic

        model = plain_model(self.model, "eager")
        given = example_inputs(model)
        torch.onnx.export(
            model,
            tuple(given.values()),
            str(folder / "float.onnx"),
            input_names=list(given),
            output_names=["logits"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in given},
            opset_version=OPSET,
            dynamo=False,
        )
        if model.config.model_type in FUSED:
            self._fuse(folder, model.config)
        else:
            (folder / "float.onnx").rename(folder / "fused.onnx")
        if not self.is_quantized:
            (folder / "fused.onnx").rename(folder / FILE)
            return
        quantize_dynamic(
            str(folder / "fused.onnx"),
            str(folder / FILE),
            per_channel=True,
            reduce_range=self.reduced,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        (folder / "fused.onnx").unlink()

    def _fuse(self, folder: Path, config: Any) -> None:
        from onnxruntime.transformers.optimizer import optimize_model

        fused = optimize_model(
            str(folder / "float.onnx"),
            "bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            opt_level=0,
        )
        counts = fused.get_fused_operator_statistics()
        expected = {"Attention": config.num_hidden_layers, "SkipLayerNormalization": 2 * config.num_hidden_layers}
        if any(counts[name] != count for name, count in expected.items()):
            raise RuntimeError(f"the optimizer fused {counts}, not {expected}: the comparison would not be fair.")
        fused.save_model_to_file(str(folder / "fused.onnx"))
        (folder / "float.onnx").unlink()


class OnnxRuntimeFloat32(OnnxRuntimeInt8):
    """The same without quantization."""

    name = "ONNX Runtime fp32"
    is_quantized = False
