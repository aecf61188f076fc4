"""Monolithic TorchScript graphs for the comparison with the `ipex` backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peers.ipex_static import ipex_quantized
from shapes import random_batch
from transformers import BertForSequenceClassification

from itrex_sweet.artifact import Artifact
from itrex_sweet.runtime.dense.subgraphs import Embed
from itrex_sweet.runtime.encoder import Encoder
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.torch_encoder import load_torch_encoder


class Monolith(torch.nn.Module):
    """Runs every layer in full, then the last head."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.embed = Embed(encoder, encoder.trunk)
        head = encoder.probes[-1].head
        self.register_buffer("dense", head.dense.weight)
        self.register_buffer("dense_bias", head.dense.bias)
        self.register_buffer("out", head.classifier.weight)
        self.register_buffer("out_bias", head.classifier.bias)

    def forward(self, ids: torch.Tensor, types: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor):
        first = self.embed(ids, types, positions, mask)[:, 0]
        pooled = torch.tanh(torch.nn.functional.linear(first, self.dense, self.dense_bias))
        return torch.nn.functional.linear(pooled, self.out, self.out_bias)


def monoliths(artifact: Artifact, rows: int, length: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns both graphs with their inputs bound: IPEX's own, and that of the artifact's layers."""
    batch = random_batch(artifact, rows, length)
    plain = BertForSequenceClassification(artifact.model_config()).eval()
    own, of_artifact = (
        ipex_quantized(plain, [padded(batch)], padded(batch)),
        traced(Monolith(load_torch_encoder(artifact)), dense_inputs(batch)),
    )
    return partial(run_all, own, [padded(batch)]), partial(run_all, of_artifact, [dense_inputs(batch)])


def traced(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Callable[..., Any]:
    """Traces, freezes and fuses a module."""
    with torch.no_grad():
        frozen = torch.jit.freeze(torch.jit.trace(module.eval(), inputs, check_trace=False))
        frozen(*inputs)
        frozen(*inputs)
    return frozen


def padded(batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns token ids and attention mask, padded to the longest row."""
    ids = torch.zeros(len(batch), int(batch.lengths.max()), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(batch.rows()):
        ids[place, : len(row)], mask[place, : len(row)] = torch.from_numpy(row), 1
    return ids, mask


def dense_inputs(batch: TokenBatch) -> tuple[torch.Tensor, ...]:
    """Returns the inputs of the dense subgraphs."""
    ids, mask = padded(batch)
    positions = torch.arange(ids.shape[1]).expand_as(ids).contiguous()
    return ids, torch.zeros_like(ids), positions, mask.bool()


def run_all(module: Callable[..., Any], inputs: list[tuple[torch.Tensor, ...]]) -> None:
    with torch.inference_mode():
        for arguments in inputs:
            module(*arguments)
