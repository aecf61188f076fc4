"""The IPEX backend: TorchScript subgraphs, fused by oneDNN Graph, in float32, bfloat16 or INT8."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.runtime.backends.base import EncoderBackend, validate_dtype
from itrex_sweet.runtime.backends.ipex_version import check_ipex_version
from itrex_sweet.runtime.dense import build_subgraphs
from itrex_sweet.runtime.dense.blocks import ROW_COUNTS, BlockHidden, merge_blocks, pad_to_blocks, possible_token_counts
from itrex_sweet.runtime.dense.linear import StaticLinear
from itrex_sweet.runtime.dense.subgraphs import Probe
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.native.cores import validate_threads
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_encoder import load_torch_encoder, with_torch_tensors
from itrex_sweet.runtime.torch_threads import computing_with, on_own_threads

logger = logging.getLogger(__name__)

TRACE_SHAPE = (2, 8)


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


class IpexBackend(EncoderBackend):
    """Runs an early-exit artifact with IPEX on the CPU.

    Fused INT8 layers are compiled once per input shape. Rows are padded to blocks of few shapes (`dense.blocks`), which
    limits the number of compilations to `max_compilations`; compilations after loading are logged at level DEBUG. Float
    layers are not compiled per shape.

    Concurrent calls are serialized. A forked child cannot use its parent's backend, because IPEX would wait for threads
    that do not exist in the child.

    Args:
        artifact: opened by `open_artifact`.
        dtype: `"float32"` or `"bfloat16"`, for matrix products of a float artifact. Layers of an INT8 artifact that are
            not quantized run in float32.
        warm_up: (rows, tokens) of expected batches, compiled at construction.
        encoder: replaces the artifact's own weights.
        threads: number of threads that weights are packed for and calls use; by default `torch.get_num_threads()`.

    Raises:
        BackendUnavailable: IPEX is missing or was built for another torch, does not support a layer, did not fuse an
            INT8 layer, or a forked child calls its parent's backend.
        ConfigError: an unknown dtype, bfloat16 for an INT8 artifact, an invalid warm-up shape, or an invalid number of
            threads.
    """

    name = "ipex"

    def __init__(
        self,
        artifact: Artifact,
        dtype: str = "float32",
        warm_up: Sequence[tuple[int, int]] = (),
        encoder: Encoder | None = None,
        threads: int | None = None,
    ):
        self.asked_threads = None if threads is None else validate_threads(threads)
        self._process = os.getpid()
        import_ipex()
        encoder = load_torch_encoder(artifact) if encoder is None else with_torch_tensors(encoder)
        super().__init__(artifact, encoder)
        _check_static(encoder)
        torch_dtype = getattr(torch, validate_dtype(dtype, encoder))
        _check_warm_up(warm_up, encoder.max_tokens)
        self._lock = threading.RLock()
        with computing_with(self.asked_threads):
            self.threads = torch.get_num_threads()
            self._compile(encoder, torch_dtype, warm_up)

    def _compile(self, encoder: Encoder, torch_dtype: torch.dtype, warm_up: Sequence[tuple[int, int]]) -> None:
        dense = build_subgraphs(encoder)
        self._reads_positions = dense.reads_positions
        ids, mask = torch.zeros(TRACE_SHAPE, dtype=torch.int64), torch.ones(TRACE_SHAPE, dtype=torch.bool)
        states = torch.zeros(*TRACE_SHAPE, encoder.hidden_size)
        inputs = (states, mask, ids) if self._reads_positions else (states, mask)
        self._embed = _Subgraph("embed", dense.embed, (ids, ids, ids, mask), torch_dtype)
        self._probe = [_Subgraph(f"probe {k}", module, inputs, torch_dtype) for k, module in enumerate(dense.probe)]
        self._advance = [
            _Subgraph(f"advance {k}", module, inputs, torch_dtype) for k, module in enumerate(dense.advance)
        ]
        for rows, length in warm_up:
            self._run_all(rows, length)
        for subgraph in self._subgraphs:
            subgraph.is_loaded = True

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

    @on_own_threads
    @torch.no_grad()
    def embed(self, batch: TokenBatch) -> BlockHidden:
        self._check_process()
        tokens, hidden = pad_to_blocks(batch)
        with self._lock:
            self._check_num_threads()
            states = [
                self._embed(ids["input_ids"], ids["token_type_ids"], block.positions, block.mask)
                for ids, block in zip(tokens, hidden.blocks, strict=True)
            ]
        return hidden.with_states(states)

    @on_own_threads
    @torch.no_grad()
    def probe(self, exit_index: int, hidden: BlockHidden) -> np.ndarray:
        self._check_process()
        hidden = hidden.compacted()
        logits = np.empty((len(hidden), self.num_outputs), dtype=np.float32)
        for block, of_block in enumerate(self._each_block(self._probe[exit_index], hidden)):
            rows = np.flatnonzero(hidden.locations[:, 0] == block)
            logits[rows] = of_block.float().numpy()[hidden.locations[rows, 1]]
        return logits

    @on_own_threads
    @torch.no_grad()
    def advance(self, exit_index: int, hidden: BlockHidden) -> BlockHidden:
        self._check_process()
        hidden = hidden.compacted()
        return hidden.with_states(self._each_block(self._advance[exit_index], hidden))

    @torch.no_grad()
    def merge(self, parts: Sequence[BlockHidden]) -> BlockHidden:
        return merge_blocks(parts)

    # ------------------------------------------------------------------ subgraphs

    @property
    def _subgraphs(self) -> list[_Subgraph]:
        return [self._embed, *self._probe, *self._advance]

    def _each_block(self, subgraph: _Subgraph, hidden: BlockHidden) -> list[torch.Tensor]:
        with self._lock:
            self._check_num_threads()
            return [
                subgraph(block.states, block.mask, *([block.positions] if self._reads_positions else []))
                for block in hidden.blocks
            ]

    def _check_process(self) -> None:
        """Raises in a forked child; called before the lock, which a thread of the parent may have held at the fork."""
        if os.getpid() != self._process:
            raise BackendUnavailable(
                "This backend was loaded before the process forked, and IPEX does not support forks. Load the model in "
                "the child, start processes with 'spawn', or use backend='native'."
            )

    def _check_num_threads(self) -> None:
        if torch.get_num_threads() != self.threads:
            raise BackendUnavailable(
                f"This backend packed its weights for {self.threads} threads, but torch.get_num_threads() is "
                f"{torch.get_num_threads()}. Call torch.set_num_threads({self.threads}), or reload the artifact."
            )

    def _run_all(self, rows: int, length: int) -> None:
        """Runs every subgraph on a batch of this shape."""
        hidden = self.embed(TokenBatch.from_rows([[0] * length] * rows))
        for exit_index in range(len(self._probe)):
            self.probe(exit_index, hidden)
            if exit_index < len(self._advance):
                hidden = self.advance(exit_index, hidden)


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


def _check_static(encoder: Encoder) -> None:
    if any(linear.input_scale is None for linear in encoder.quantized_linears()):
        raise BackendUnavailable(
            "This artifact was quantized with the recipe 'dynamic', and IPEX fuses only static quantization. Run it "
            "with backend='native' or 'torch', or quantize with the recipe 'static' or 'smooth'."
        )


def _check_warm_up(warm_up: Sequence[tuple[int, int]], max_tokens: int | None) -> None:
    for rows, length in warm_up:
        if rows < 1 or length < 1 or (max_tokens is not None and length > max_tokens):
            limit = "" if max_tokens is None else f", and at most {max_tokens} tokens per row"
            raise ConfigError(
                f"warm_up contains ({rows}, {length}); expected positive numbers of rows and tokens{limit}."
            )
