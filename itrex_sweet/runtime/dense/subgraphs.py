"""The per-exit subgraphs: embed, one probe per exit, and one advance between two exits.

Rows are right-padded to a common length. The contents of padding and of padding rows do not affect other rows. Batch
size and length stay dynamic when the modules are traced or exported. The modules copy the input of their first
residual, because a compiler that fuses additions in place would overwrite the caller's states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from itrex_sweet.runtime.dense.attention import MASKED, Attention, FirstTokenAttention
from itrex_sweet.runtime.dense.convolution import PositionConvolution
from itrex_sweet.runtime.dense.linear import linear_module, norm_module, optional_norm
from itrex_sweet.runtime.encoder import Embeddings, Encoder, Layer, Linear, QuantizedTable
from itrex_sweet.runtime.encoder import Probe as ProbeDescription


@dataclass(frozen=True)
class DenseSubgraphs:
    """The subgraphs of one model. Callers disable gradients themselves.

    Args:
        embed: (input_ids, token_type_ids, positions, mask) → states before the last layer of the first exit.
        probe: one per exit: (states, mask[, positions]) → logits of the exit, (rows, labels).
        advance: one per exit but the last: (states, mask[, positions]) → states before the next exit's last layer.
        reads_positions: probe and advance take positions (disentangled or rotary attention, a position bias, a window,
            or a convolution).

    Input ids, token types and positions are (rows, length) int64; positions are those of `TokenBatch`, and any valid
    position for padding. The mask is (rows, length) bool, true for tokens and for the first column. States are
    (rows, length, hidden) float.
    """

    embed: nn.Module
    probe: tuple[nn.Module, ...]
    advance: tuple[nn.Module, ...]
    reads_positions: bool


def build_subgraphs(encoder: Encoder) -> DenseSubgraphs:
    """Builds the subgraphs.

    Args:
        encoder: its float tensors are shared, not copied.
    """
    first, *others = encoder.segments
    return DenseSubgraphs(
        embed=Embed(encoder, first).eval(),
        probe=tuple(_probe_module(encoder, probe).eval() for probe in encoder.probes),
        advance=tuple(Advance(encoder, segment).eval() for segment in others),
        reads_positions=encoder.position_bias is not None
        or any(layer.relative or layer.convolution or layer.rotary or layer.window for layer in encoder.layers),
    )


class Embed(nn.Module):
    """Computes the states before the last layer of the first exit."""

    def __init__(self, encoder: Encoder, layers: Sequence[Layer]):
        super().__init__()
        self.embeddings = EmbeddingSum(encoder.embeddings, encoder.padding_idx)
        self.layers = Advance(encoder, layers)

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        return self.layers(self.embeddings(input_ids, token_type_ids, positions), mask, positions)


class Probe(nn.Module):
    """Computes the logits of an exit from the states before its last layer, for the first token only."""

    def __init__(self, encoder: Encoder, probe: ProbeDescription):
        super().__init__()
        layer = probe.layer
        self.norm_before = _norm_before_attention(encoder, layer)
        self.attention = FirstTokenAttention(encoder, layer)
        self.rest = PostAttention(encoder, layer)
        self.convolution = None if layer.convolution is None else PositionConvolution(layer.convolution)
        self.head = ClassificationHead(probe)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        context = self.attention(self.norm_before(states), _additive_mask(mask), positions)
        first = self.rest(context, states[:, 0].clone())
        if self.convolution is not None:
            first = self.convolution(states, mask, positions, positions[:, :1], first[:, None])[:, 0]
        return self.head(first)


class PoolingProbe(nn.Module):
    """Computes the logits of an exit whose head pools all tokens; runs the exit's last layer in full."""

    def __init__(self, encoder: Encoder, probe: ProbeDescription):
        super().__init__()
        self.layer = Advance(encoder, [probe.layer])
        self.head = ClassificationHead(probe)
        self.pools_late = probe.head.pooling == "late"

    def forward(self, states: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        states, is_token = self.head.norm_before(self.layer(states, mask, positions)), mask.to(states.dtype)
        states = self.head.transformed(states) if self.pools_late else states
        pooled = (states * is_token[..., None]).sum(1) / is_token.sum(1, keepdim=True)
        return self.head.classifier(pooled if self.pools_late else self.head.transformed(pooled))


def _probe_module(encoder: Encoder, probe: ProbeDescription) -> Probe | PoolingProbe:
    return (Probe if probe.head.pooling == "first" else PoolingProbe)(encoder, probe)


class ClassificationHead(nn.Module):
    """Computes logits from the states (rows, hidden) after an exit's last layer."""

    def __init__(self, probe: ProbeDescription):
        super().__init__()
        self.norm_before = optional_norm(probe.norm)
        self.dense = linear_module(probe.head.dense)
        self.activation = ACT2FN[probe.head.activation]
        self.norm = optional_norm(probe.head.norm)
        self.classifier = linear_module(probe.head.classifier)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.transformed(self.norm_before(states)))

    def transformed(self, states: torch.Tensor) -> torch.Tensor:
        """Computes the input of the classifier from normed states."""
        return self.norm(self.activation(self.dense(states)))


class Advance(nn.Module):
    """Runs layers in full; without layers, returns the states unchanged."""

    def __init__(self, encoder: Encoder, layers: Sequence[Layer]):
        super().__init__()
        self.layers = nn.ModuleList(FullLayer(encoder, layer) for layer in layers)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        added = _additive_mask(mask)
        states = states.clone() if len(self.layers) else states
        for layer in self.layers:
            states = layer(states, mask, added, positions)
        return states


class FullLayer(nn.Module):
    """Runs one layer for every token."""

    def __init__(self, encoder: Encoder, layer: Layer):
        super().__init__()
        self.norm_before = _norm_before_attention(encoder, layer)
        self.attention = Attention(encoder, layer)
        self.rest = PostAttention(encoder, layer)
        self.convolution = None if layer.convolution is None else PositionConvolution(layer.convolution)

    def forward(
        self, states: torch.Tensor, mask: torch.Tensor, added: torch.Tensor, positions: torch.Tensor | None
    ) -> torch.Tensor:
        context = self.attention(self.norm_before(states), added, positions)
        after = self.rest(context, states.flatten(0, 1)).view_as(states)
        if self.convolution is not None:
            after = self.convolution(states, mask, positions, positions, after)
        return after


class PostAttention(nn.Module):
    """Runs a layer from after the attention: context and layer input, (tokens, hidden) → (tokens, hidden)."""

    def __init__(self, encoder: Encoder, layer: Layer):
        super().__init__()
        self.norm_first = encoder.norm_first
        self.attention_output = linear_module(layer.attention_output)
        self.attention_norm = nn.Identity() if encoder.norm_first else norm_module(layer.attention_norm)
        self.up = linear_module(layer.up)
        self.gate = None if layer.gate is None else linear_module(layer.gate)
        self.activation = ACT2FN[encoder.activation]
        self.down = linear_module(layer.down)
        self.output_norm = norm_module(layer.output_norm)

    def forward(self, context: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        attended = self.attention_norm(self.attention_output(context) + states)
        if self.norm_first:
            return self._feed_forward(self.output_norm(attended)) + attended
        return self.output_norm(self._feed_forward(attended) + attended)

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.up(states))
        return self.down(inner if self.gate is None else inner * self.gate(states))


class EmbeddingSum(nn.Module):
    """Sums the embeddings, normalizes and projects: (rows, length) ids → (rows, length, hidden)."""

    def __init__(self, embeddings: Embeddings, padding_idx: int | None):
        super().__init__()
        self.offset = 0 if padding_idx is None else padding_idx + 1
        self.words = _table(embeddings.words)
        self.token_types = _table(embeddings.token_types)
        self.positions = _table(embeddings.positions)
        self.before_norm = _projection(embeddings.projection_before_norm)
        self.norm = optional_norm(embeddings.norm)
        self.after_norm = _projection(embeddings.projection_after_norm)

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        states = self.words(input_ids)
        if self.token_types is not None:
            states = states + self.token_types(token_type_ids)
        if self.positions is not None:
            states = states + self.positions(positions + self.offset)
        return self.after_norm(self.norm(self.before_norm(states)))


def _norm_before_attention(encoder: Encoder, layer: Layer) -> nn.Module:
    return optional_norm(layer.attention_norm if encoder.norm_first else None)


class QuantizedEmbedding(nn.Module):
    """Looks up rows of an int8 table in float32: (rows, length) ids → (rows, length, size)."""

    def __init__(self, table: QuantizedTable):
        super().__init__()
        self.register_buffer("weight", table.weight)
        self.register_buffer("scale", table.scale[:, None])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, self.weight).float() * F.embedding(ids, self.scale)


def _table(weight: torch.Tensor | QuantizedTable | None) -> nn.Module | None:
    if weight is None:
        return None
    return QuantizedEmbedding(weight) if isinstance(weight, QuantizedTable) else nn.Embedding.from_pretrained(weight)


def _projection(layer: Linear | None) -> nn.Module:
    return nn.Identity() if layer is None else linear_module(layer)


def _additive_mask(mask: torch.Tensor) -> torch.Tensor:
    """Converts a (rows, length) bool mask to (rows, 1, 1, length) float: 0 for tokens, `MASKED` for padding."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, MASKED)[:, None, None, :]
