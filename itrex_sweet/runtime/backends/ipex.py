"""Runs an artifact with Intel Extension for PyTorch: subgraphs as TorchScript, fused by oneDNN, in float or 8 bits."""

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
from itrex_sweet.runtime.backends.base import EncoderBackend, checked_dtype
from itrex_sweet.runtime.backends.ipex_version import refuse_unusable_ipex
from itrex_sweet.runtime.dense import dense_exits
from itrex_sweet.runtime.dense.blocks import ROW_COUNTS, BlockHidden, blocks_of, merged, token_counts
from itrex_sweet.runtime.dense.linear import StaticLinear
from itrex_sweet.runtime.dense.subgraphs import Probe
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.native.cores import checked_threads
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_encoder import load_torch_encoder, with_torch_tensors
from itrex_sweet.runtime.torch_threads import computing_with, on_own_threads

logger = logging.getLogger(__name__)

SHAPE_OF_TRACE = (2, 8)


def import_ipex() -> ModuleType:
    """Intel Extension for PyTorch, imported only when its version fits torch's: if not, its import ends in an exit.

    Raises:
        BackendUnavailable: it is not installed, made for another torch, or torch's own oneDNN fusion is on.
    """
    refuse_unusable_ipex()
    if torch.jit.onednn_fusion_enabled():
        raise BackendUnavailable(
            "torch.jit.enable_onednn_fusion(True) is set, and IPEX, which brings its own, crashes beside it. Switch it "
            "off first."
        )
    import intel_extension_for_pytorch

    return intel_extension_for_pytorch


class IpexBackend(EncoderBackend):
    """Runs an early-exit artifact with IPEX on the CPU; whether with AVX-512 or AMX is its choice.

    Fused 8-bit layers are compiled anew for every shape they meet. Rows come in padded blocks of few shapes (`blocks`),
    so that their number stays below `most_compilations`; each new one is counted, and after loading logged at level
    DEBUG. Float layers need no such compilation.

    Calls from several threads wait for one another. A child after a fork cannot go on with its parent's backend: what
    IPEX compiled waits for threads that are not there.

    Args:
        artifact: opened by `open_artifact`.
        dtype: `"float32"` or `"bfloat16"`, of matrix products in a float artifact. An 8-bit artifact leaves in float32
            what it did not quantize.
        warm_up: (rows, tokens) of batches to be expected, compiled when the backend is made.
        encoder: to run instead of the artifact's own weights.
        threads: that it packs for and computes with; as many as torch is set to if absent.

    Raises:
        BackendUnavailable: IPEX is missing or does not fit, the artifact has layers it cannot run, it left 8-bit layers
            in float, or a forked child calls its parent's backend.
        ConfigError: an unknown dtype, bfloat16 for an 8-bit artifact, a warm-up of impossible shape, or a number of
            threads that is none.
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
        self.asked_threads = None if threads is None else checked_threads(threads)
        self._process = os.getpid()
        import_ipex()
        encoder = load_torch_encoder(artifact) if encoder is None else with_torch_tensors(encoder)
        super().__init__(artifact, encoder)
        _refuse_dynamic(encoder)
        torch_dtype = getattr(torch, checked_dtype(dtype, encoder))
        _refuse_impossible(warm_up, encoder.max_tokens)
        self._lock = threading.RLock()
        with computing_with(self.asked_threads):
            self.threads = torch.get_num_threads()
            self._compile(encoder, torch_dtype, warm_up)

    def _compile(self, encoder: Encoder, torch_dtype: torch.dtype, warm_up: Sequence[tuple[int, int]]) -> None:
        dense = dense_exits(encoder)
        self._reads_positions = dense.reads_positions
        ids, mask = torch.zeros(SHAPE_OF_TRACE, dtype=torch.int64), torch.ones(SHAPE_OF_TRACE, dtype=torch.bool)
        states = torch.zeros(*SHAPE_OF_TRACE, encoder.hidden_size)
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
        """Shapes that fused 8-bit subgraphs were compiled for so far, summed over the subgraphs."""
        return sum(len(subgraph.sizes) for subgraph in self._subgraphs if subgraph.int8_layers)

    @property
    def most_compilations(self) -> int:
        """What `compilations` never exceeds, as long as no row has more than 512 tokens."""
        of_states = len(token_counts(self.max_tokens or 512))
        return sum(
            len(ROW_COUNTS) if subgraph in self._probe else of_states
            for subgraph in self._subgraphs
            if subgraph.int8_layers
        )

    @on_own_threads
    @torch.no_grad()
    def embed(self, batch: TokenBatch) -> BlockHidden:
        self._refuse_in_a_child()
        tokens, hidden = blocks_of(batch)
        with self._lock:
            self._refuse_other_threads()
            states = [
                self._embed(ids["input_ids"], ids["token_type_ids"], block.positions, block.mask)
                for ids, block in zip(tokens, hidden.blocks, strict=True)
            ]
        return hidden.with_states(states)

    @on_own_threads
    @torch.no_grad()
    def probe(self, exit_index: int, hidden: BlockHidden) -> np.ndarray:
        self._refuse_in_a_child()
        hidden = hidden.compacted()
        logits = np.empty((len(hidden), self.num_outputs), dtype=np.float32)
        for block, of_block in enumerate(self._each_block(self._probe[exit_index], hidden)):
            rows = np.flatnonzero(hidden.places[:, 0] == block)
            logits[rows] = of_block.float().numpy()[hidden.places[rows, 1]]
        return logits

    @on_own_threads
    @torch.no_grad()
    def advance(self, exit_index: int, hidden: BlockHidden) -> BlockHidden:
        self._refuse_in_a_child()
        hidden = hidden.compacted()
        return hidden.with_states(self._each_block(self._advance[exit_index], hidden))

    @torch.no_grad()
    def merge(self, parts: Sequence[BlockHidden]) -> BlockHidden:
        return merged(parts)

    # ------------------------------------------------------------------ subgraphs

    @property
    def _subgraphs(self) -> list[_Subgraph]:
        return [self._embed, *self._probe, *self._advance]

    def _each_block(self, subgraph: _Subgraph, hidden: BlockHidden) -> list[torch.Tensor]:
        with self._lock:
            self._refuse_other_threads()
            return [
                subgraph(block.states, block.mask, *([block.positions] if self._reads_positions else []))
                for block in hidden.blocks
            ]

    def _refuse_in_a_child(self) -> None:
        """Before the lock, which a thread of the parent may have held at the fork."""
        if os.getpid() != self._process:
            raise BackendUnavailable(
                "This backend was loaded before the process forked, and IPEX cannot go on in the child. Load the model "
                "in the child, start processes with 'spawn', or take backend='native'."
            )

    def _refuse_other_threads(self) -> None:
        if torch.get_num_threads() != self.threads:
            raise BackendUnavailable(
                f"This backend packed its weights for {self.threads} threads and now there are "
                f"{torch.get_num_threads()}. Call torch.set_num_threads({self.threads}), or load the artifact anew."
            )

    def _run_all(self, rows: int, length: int) -> None:
        """Every subgraph, for a batch of this shape."""
        hidden = self.embed(TokenBatch.from_rows([[0] * length] * rows))
        for exit_index in range(len(self._probe)):
            self.probe(exit_index, hidden)
            if exit_index < len(self._advance):
                hidden = self.advance(exit_index, hidden)


class _Subgraph:
    """One subgraph, traced, frozen and fused.

    Attributes:
        int8_layers: 8-bit layers in it.
        sizes: of the inputs of its fused layers so far: rows for a probe, else tokens.
        is_loaded: whether a new size is worth a word.
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
            self._refuse_float_layers(inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        rows, columns = inputs[0].shape[:2]
        size = rows if self._reads_first_tokens else rows * columns
        if size not in self.sizes:
            self.sizes.add(size)
            if self.int8_layers and self.is_loaded:
                logger.debug("%s: compiling for a new shape, %d rows of %d tokens", self.name, rows, columns)
        return self._module(*inputs)

    def _refuse_float_layers(self, inputs: tuple[torch.Tensor, ...]) -> None:
        fused = fused_linears(self._module.graph_for(*inputs))
        if fused < self.int8_layers:
            raise BackendUnavailable(
                f"IPEX fused {fused} of the {self.int8_layers} 8-bit layers of {self.name!r} and left the others in "
                "float, which would be slow. Is oneDNN fusion or TorchScript's profiling switched off in this process "
                "(ipex.enable_onednn_fusion, torch.jit settings)? The torch backend can run this artifact."
            )


def fused_linears(graph: torch.Graph) -> int:
    """Linear layers in the fused partitions of an optimized graph."""
    partitions = [node.g("Subgraph") for node in graph.nodes() if node.kind() == "ipex::LlgaFusionGroup"]
    return sum(node.kind() == "aten::linear" for partition in partitions for node in partition.nodes())


def _refuse_dynamic(encoder: Encoder) -> None:
    if any(linear.input_scale is None for linear in encoder.quantized_linears()):
        raise BackendUnavailable(
            "This artifact was quantized with the recipe 'dynamic', a scale for each row, and IPEX fuses only scales "
            "fixed at calibration. Run it with the torch backend, or quantize with 'static' or 'smooth'."
        )


def _refuse_impossible(warm_up: Sequence[tuple[int, int]], max_tokens: int | None) -> None:
    for rows, length in warm_up:
        if rows < 1 or length < 1 or (max_tokens is not None and length > max_tokens):
            limit = "" if max_tokens is None else f", and the model takes rows of at most {max_tokens} tokens"
            raise ConfigError(f"warm_up holds ({rows}, {length}): rows and tokens are positive{limit}.")
