"""The OpenVINO backend: subgraphs compiled by OpenVINO's CPU plugin, in float32, bfloat16 or static INT8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.backends.base import validate_dtype
from itrex_sweet.runtime.backends.dense import DenseBackend
from itrex_sweet.runtime.backends.openvino_version import check_openvino
from itrex_sweet.runtime.dense.linear import StaticLinear
from itrex_sweet.runtime.dense.openvino import compile_on_cpu, count_integer_products, openvino_model
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.native.cores import default_threads, validate_threads
from itrex_sweet.runtime.torch_encoder import load_torch_encoder, with_torch_tensors


class OpenVinoBackend(DenseBackend):
    """Runs an early-exit artifact with OpenVINO on the CPU.

    OpenVINO generates kernels at the first call with a new shape; rows run in padded blocks of few shapes.

    Args:
        artifact: opened by `open_artifact`.
        dtype: `"float32"` or `"bfloat16"`, for a float artifact. What is not quantized in an INT8 artifact runs in
            float32.
        warm_up: (rows, tokens) of expected batches, run at construction.
        encoder: replaces the artifact's own weights.
        threads: number of threads; by default `runtime.native.cores.default_threads()`.

    Raises:
        BackendUnavailable: OpenVINO is missing, does not compute an INT8 layer in integers here, or a forked child
            calls its parent's backend.
        ConfigError: an unknown dtype, bfloat16 for an INT8 artifact, an invalid warm-up shape, or an invalid number of
            threads.
    """

    name, engine = "openvino", "OpenVINO"

    def __init__(
        self,
        artifact: Artifact,
        dtype: str = "float32",
        warm_up: Sequence[tuple[int, int]] = (),
        encoder: Encoder | None = None,
        threads: int | None = None,
    ):
        check_openvino()
        threads = default_threads() if threads is None else validate_threads(threads)
        encoder = load_torch_encoder(artifact) if encoder is None else with_torch_tensors(encoder)
        self._dtype = validate_dtype(dtype, encoder)
        super().__init__(artifact, encoder, warm_up, threads)

    def _compile(self, name: str, module: nn.Module, inputs: dict[str, torch.Tensor]) -> _Subgraph:
        hidden_size = inputs["states"].shape[-1:] if "states" in inputs else ()
        sizes = {key: (-1, -1, *(hidden_size if key == "states" else ())) for key in inputs}
        model = openvino_model(module, tuple(inputs.values()), sizes, "output")
        compiled = compile_on_cpu(model, self.threads, self._dtype)
        expected = sum(isinstance(part, StaticLinear) for part in module.modules())
        if (found := count_integer_products(compiled)) < expected:
            raise BackendUnavailable(
                f"OpenVINO computes {found} of the {expected} INT8 layers of {name!r} in integers; the others would "
                "run in float. Use backend='native' or 'torch'."
            )
        return _Subgraph(compiled)


class _Subgraph:
    """A compiled subgraph: tensors in the order of its inputs → its output."""

    def __init__(self, compiled):
        self._request = compiled.create_infer_request()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        outputs = self._request.infer([tensor.contiguous().numpy() for tensor in inputs], share_inputs=True)
        return torch.from_numpy(outputs[0])
