"""The base of backends that run traced subgraphs on padded blocks of rows."""

from __future__ import annotations

import os
import platform
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from itrex_sweet.artifact import Artifact
from itrex_sweet.errors import BackendUnavailable, ConfigError
from itrex_sweet.runtime.backends.base import EncoderBackend
from itrex_sweet.runtime.dense import build_subgraphs
from itrex_sweet.runtime.dense.blocks import BlockHidden, merge_blocks, pad_to_blocks
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.machine import Machine
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_threads import computing_with, on_own_threads

TRACE_SHAPE = (2, 8)
_VNNI = ("avx_vnni", "avx512_vnni", "amx_int8")

Subgraph = Callable[..., torch.Tensor]


class DenseBackend(EncoderBackend):
    """Runs the subgraphs of `runtime.dense` with an engine that compiles them.

    Rows are padded to blocks of few shapes (`dense.blocks`). Concurrent calls are serialized. A forked child cannot use
    its parent's backend, because the engine would wait for threads that do not exist in the child.

    Args:
        artifact: opened by `open_artifact`.
        encoder: with torch tensors.
        warm_up: (rows, tokens) of expected batches, run at construction.
        threads: number of threads; by default `torch.get_num_threads()`.

    Raises:
        BackendUnavailable: dynamic quantization, INT8 layers on a processor whose 8-bit products saturate, or a layer
            that the engine does not support.
        ConfigError: an invalid warm-up shape.
    """

    engine: str  # its name in messages

    def __init__(self, artifact: Artifact, encoder: Encoder, warm_up: Sequence[tuple[int, int]], threads: int | None):
        super().__init__(artifact, encoder)
        self._check_static(encoder)
        if encoder.quantized_linears():
            self._check_integer_products()
        _check_warm_up(warm_up, encoder.max_tokens)
        self.asked_threads = threads
        self._process, self._lock = os.getpid(), threading.RLock()
        with computing_with(threads):
            self.threads = torch.get_num_threads()
            self._build(encoder)
            for rows, length in warm_up:
                self._run_all(rows, length)

    @abstractmethod
    def _compile(self, name: str, module: nn.Module, inputs: dict[str, torch.Tensor]) -> Subgraph:
        """Compiles a subgraph with dynamic numbers of rows and tokens.

        Args:
            name: for messages.
            module: takes the inputs in order.
            inputs: example inputs by name.
        """

    def _check_integer_products(self) -> None:
        if platform.machine() == "x86_64" and not set(_VNNI) & set(Machine.here().instruction_sets):
            raise BackendUnavailable(
                f"8-bit products of {self.engine} saturate on x86-64 processors without VNNI. Use backend='native', or "
                "the float32 artifact that this one was quantized from."
            )

    def _check_before_run(self) -> None:
        """Raises if the engine cannot run now; called with the lock held."""

    @on_own_threads
    @torch.no_grad()
    def embed(self, batch: TokenBatch) -> BlockHidden:
        self._check_process()
        tokens, hidden = pad_to_blocks(batch)
        with self._lock:
            self._check_before_run()
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

    def _build(self, encoder: Encoder) -> None:
        """Compiles all subgraphs."""
        dense = build_subgraphs(encoder)
        self._reads_positions = dense.reads_positions
        ids, mask = torch.zeros(TRACE_SHAPE, dtype=torch.int64), torch.ones(TRACE_SHAPE, dtype=torch.bool)
        tokens = {"input_ids": ids, "token_type_ids": ids, "positions": ids, "mask": mask}
        inputs = {"states": torch.zeros(*TRACE_SHAPE, encoder.hidden_size), "mask": mask}
        if dense.reads_positions:
            inputs["positions"] = ids
        self._embed = self._compile("embed", dense.embed, tokens)
        self._probe = [self._compile(f"probe {k}", module, inputs) for k, module in enumerate(dense.probe)]
        self._advance = [self._compile(f"advance {k}", module, inputs) for k, module in enumerate(dense.advance)]

    def _each_block(self, subgraph: Subgraph, hidden: BlockHidden) -> list[torch.Tensor]:
        with self._lock:
            self._check_before_run()
            return [
                subgraph(block.states, block.mask, *([block.positions] if self._reads_positions else []))
                for block in hidden.blocks
            ]

    def _check_process(self) -> None:
        """Raises in a forked child; called before the lock, which a thread of the parent may have held at the fork."""
        if os.getpid() != self._process:
            raise BackendUnavailable(
                f"This backend was loaded before the process forked, and {self.engine} does not support forks. Load "
                "the model in the child, start processes with 'spawn', or use backend='native'."
            )

    def _check_static(self, encoder: Encoder) -> None:
        if any(linear.input_scale is None for linear in encoder.quantized_linears()):
            raise BackendUnavailable(
                f"This artifact was quantized with the recipe 'dynamic', and {self.engine} fuses only static "
                "quantization. Run it with backend='native' or 'torch', or quantize with the recipe 'static' or "
                "'smooth'."
            )

    def _run_all(self, rows: int, length: int) -> None:
        """Runs every subgraph on a batch of this shape."""
        hidden = self.embed(TokenBatch.from_rows([[0] * length] * rows))
        for exit_index in range(len(self._probe)):
            self.probe(exit_index, hidden)
            if exit_index < len(self._advance):
                hidden = self.advance(exit_index, hidden)


def _check_warm_up(warm_up: Sequence[tuple[int, int]], max_tokens: int | None) -> None:
    for rows, length in warm_up:
        if rows < 1 or length < 1 or (max_tokens is not None and length > max_tokens):
            limit = "" if max_tokens is None else f", and at most {max_tokens} tokens per row"
            raise ConfigError(
                f"warm_up contains ({rows}, {length}); expected positive numbers of rows and tokens{limit}."
            )
