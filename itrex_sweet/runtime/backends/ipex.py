"""The IPEX backend: TorchScript subgraphs, fused by oneDNN Graph, in float32, bfloat16 or INT8."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from types import ModuleType

import torch

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.backends.base import validate_dtype
from itrex_sweet.runtime.backends.dense import DenseBackend
from itrex_sweet.runtime.backends.ipex_version import check_ipex_version
from itrex_sweet.runtime.dense.blocks import ROW_COUNTS, possible_token_counts
from itrex_sweet.runtime.dense.linear import StaticLinear
from itrex_sweet.runtime.dense.subgraphs import Probe
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.machine import Machine
from itrex_sweet.runtime.native.cores import validate_threads
from itrex_sweet.runtime.torch_encoder import load_torch_encoder, with_torch_tensors

logger = logging.getLogger(__name__)


def import_ipex() -> ModuleType:
    """Imports Intel Extension for PyTorch after a version check: with another torch, its import exits the process.

    Raises:
        BackendUnavailable: it is not installed or built for another torch, or torch's own oneDNN fusion is enabled.
    """
    check_ipex_version()
    if torch.jit.onednn_fusion_enabled():
        raise BackendUnavailable(
            "torch.jit.enable_onednn_fusion(True) is set, which makes IPEX crash. Call "
            "torch.jit.enable_onednn_fusion(False) first."
        )
    import intel_extension_for_pytorch

    return intel_extension_for_pytorch


class IpexBackend(DenseBackend):
    """Runs an early-exit artifact with IPEX on the CPU.

    Fused INT8 layers are compiled once per input shape. Rows are padded to blocks of few shapes (`dense.blocks`), which
    limits the number of compilations to `max_compilations`; compilations after loading are logged at level DEBUG. Float
    layers are not compiled per shape.

    Args:
        artifact: opened by `open_artifact`.
        dtype: `"float32"` or `"bfloat16"`, for matrix products of a float artifact. Layers of an INT8 artifact that are
            not quantized run in float32.
        warm_up: (rows, tokens) of expected batches, compiled at construction.
        encoder: replaces the artifact's own weights.
        threads: number of threads that weights are packed for and calls use; by default `torch.get_num_threads()`.

    Raises:
        BackendUnavailable: IPEX is missing or was built for another torch, does not support a layer, did not fuse an
            INT8 layer, the processor lacks VNNI for INT8 or AVX-512 for bfloat16, or a forked child calls its parent's
            backend.
        ConfigError: an unknown dtype, bfloat16 for an INT8 artifact, an invalid warm-up shape, or an invalid number of
            threads.
    """

    name, engine = "ipex", "IPEX"

    def __init__(
        self,
        artifact: Artifact,
        dtype: str = "float32",
        warm_up: Sequence[tuple[int, int]] = (),
        encoder: Encoder | None = None,
        threads: int | None = None,
    ):
        import_ipex()
        encoder = load_torch_encoder(artifact) if encoder is None else with_torch_tensors(encoder)
        self._dtype = getattr(torch, validate_dtype(dtype, encoder))
        if self._dtype == torch.bfloat16 and "avx512f" not in Machine.here().instruction_sets:
            raise BackendUnavailable(
                "IPEX needs a processor with AVX-512 for bfloat16. Use dtype='float32', or backend='native'."
            )
        self._subgraphs: list[_Subgraph] = []
        super().__init__(artifact, encoder, warm_up, None if threads is None else validate_threads(threads))
        for subgraph in self._subgraphs:
            subgraph.is_loaded = True

    def _compile(self, name: str, module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> _Subgraph:
        subgraph = _Subgraph(name, module, tuple(inputs.values()), self._dtype)
        self._subgraphs.append(subgraph)
        return subgraph

    @property
    def compilations(self) -> int:
        """Number of compilations so far, summed over the INT8 subgraphs."""
        return sum(len(subgraph.sizes) for subgraph in self._subgraphs if subgraph.int8_layers)

    @property
    def max_compilations(self) -> int:
        """Upper bound of `compilations` for rows of at most 512 tokens."""
        num_token_counts = len(possible_token_counts(self.max_tokens or 512))
        return sum(
            len(ROW_COUNTS) if subgraph in self._probe else num_token_counts
            for subgraph in self._subgraphs
            if subgraph.int8_layers
        )

    def _check_before_run(self) -> None:
        if torch.get_num_threads() != self.threads:
            raise BackendUnavailable(
                f"This backend packed its weights for {self.threads} threads, but torch.get_num_threads() is "
                f"{torch.get_num_threads()}. Call torch.set_num_threads({self.threads}), or reload the artifact."
            )


class _Subgraph:
    """A traced, frozen and fused subgraph.

    Attributes:
        int8_layers: number of INT8 layers.
        sizes: input sizes of the fused layers so far: rows for a probe, else tokens.
        is_loaded: whether new sizes are logged.
    """

    def __init__(self, name: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype):
        self.name, self.is_loaded, self.sizes = name, False, set()
        self._reads_first_tokens = isinstance(module, Probe)
        self.int8_layers = sum(isinstance(part, StaticLinear) for part in module.modules())
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="JIT pass will be deprecated|Conv1d channels last")
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32, cache_enabled=False):
                self._module = torch.jit.freeze(torch.jit.trace(module, inputs, check_trace=False))
            self(*inputs)  # profiles
            self(*inputs)  # fuses
            self._check_fusion(inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        rows, columns = inputs[0].shape[:2]
        size = rows if self._reads_first_tokens else rows * columns
        if size not in self.sizes:
            self.sizes.add(size)
            if self.int8_layers and self.is_loaded:
                logger.debug("%s: compiling for a new shape, %d rows of %d tokens", self.name, rows, columns)
        return self._module(*inputs)

    def _check_fusion(self, inputs: tuple[torch.Tensor, ...]) -> None:
        fused = count_fused_linears(self._module.graph_for(*inputs))
        if fused < self.int8_layers:
            raise BackendUnavailable(
                f"IPEX fused {fused} of the {self.int8_layers} INT8 layers of {self.name!r}; the others would run in "
                "float. Check that oneDNN fusion and TorchScript profiling are enabled in this process "
                "(ipex.enable_onednn_fusion, torch.jit settings), or use backend='torch'."
            )


def count_fused_linears(graph: torch.Graph) -> int:
    """Returns the number of linear layers in the fused partitions of an optimized graph."""
    partitions = [node.g("Subgraph") for node in graph.nodes() if node.kind() == "ipex::LlgaFusionGroup"]
    return sum(node.kind() == "aten::linear" for partition in partitions for node in partition.nodes())
