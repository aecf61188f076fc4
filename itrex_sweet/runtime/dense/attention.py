"""Attention on padded rows: for every token in full layers, for the first token in probes."""

from __future__ import annotations

import torch
from torch import nn

from itrex_sweet.runtime.dense.linear import concatenated_module, linear_module
from itrex_sweet.runtime.disentangled_attention import relative_scores
from itrex_sweet.runtime.encoder import Encoder, Layer, RelativeTerms, Rotary, float_of
from itrex_sweet.runtime.position_bias import biases, columns_of
from itrex_sweet.runtime.rotary_attention import rotate

MASKED = -1e30  # below all scores, but finite in bfloat16 too, so that padding rows stay finite


class Attention(nn.Module):
    """Self-attention: states (rows, length, hidden) → context (rows · length, size).

    Args of `forward`:
        mask: (rows, 1, 1, length), additive attention mask: 0 for tokens, `MASKED` for padding.
        positions: (rows, length) int64, used by disentangled and rotary attention, by a position bias and by windows.
    """

    def __init__(self, encoder: Encoder, layer: Layer):
        super().__init__()
        self.heads = encoder.num_attention_heads
        self.scale = 1.0 / encoder.score_scale
        self.projections = concatenated_module(layer.query, layer.key, layer.value)
        self.relative = _relative_module(encoder, layer)
        self.rotary = None if layer.rotary is None else RotaryEmbedding(layer.rotary)
        self.window = layer.window
        self.register_buffer("position_bias", encoder.position_bias)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        rows, length = states.shape[0], states.shape[1]
        projected = self.projections(states.flatten(0, 1)).view(rows, length, 3, self.heads, -1)
        query, key, value = projected.permute(2, 0, 3, 1, 4).unbind(0)
        if self.relative is not None:
            mask = mask + self.scale * self.relative(positions, positions, query, key)
        if self.position_bias is not None:
            columns = columns_of(positions)
            mask = mask + biases(self.position_bias, columns, columns)
        if self.rotary is not None:
            query, key = self.rotary(query, positions), self.rotary(key, positions)
        if self.window is not None:
            distances = positions[:, None, :, None] - positions[:, None, None, :]
            mask = mask.masked_fill(distances.abs() > self.window, MASKED)
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        return context.transpose(1, 2).reshape(rows * length, -1)


class FirstTokenAttention(nn.Module):
    """Attention of the first token: states (rows, length, hidden) → context (rows, size), without computing values.

    The query is projected through the key weights, `(W_kᵀ q) · x_j = q · (W_k x_j)`; the key bias adds the same to
    every score and cancels in the softmax. The value weights are applied to the weighted sum of the states; since the
    attention weights sum to 1, the value bias is added once. Keys are computed for disentangled attention, whose
    position-to-content term multiplies each key by a different vector, and for rotary attention, which rotates each key
    by a different angle; the query, at position 0, is not rotated.
    """

    def __init__(self, encoder: Encoder, layer: Layer):
        super().__init__()
        self.heads = encoder.num_attention_heads
        self.query = linear_module(layer.query)
        key, value = float_of(layer.key), float_of(layer.value)
        self.scale = 1.0 / encoder.score_scale
        self.register_buffer("key_weight", _split_heads(key.weight, self.heads))
        self.register_buffer("value_weight", _split_heads(value.weight, self.heads).transpose(1, 2).contiguous())
        self.register_buffer("value_bias", value.bias)
        self.relative = _relative_module(encoder, layer)
        self.rotary = None if layer.rotary is None else RotaryEmbedding(layer.rotary)
        self.window = layer.window
        self.register_buffer("position_bias", encoder.position_bias)
        self.key = None if self.relative is None else linear_module(key)
        if self.rotary is not None:
            self.key = linear_module(layer.key)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
        rows, length = states.shape[0], states.shape[1]
        query = self.query(states[:, 0]).view(rows, self.heads, -1).transpose(0, 1)
        key = None
        if self.key is not None:
            key = self.key(states.flatten(0, 1)).view(rows, length, self.heads, -1).transpose(1, 2)
        if self.rotary is not None:
            rotated_query = query.transpose(0, 1)[..., None] * self.rotary.scaling  # the cosine of 0; the sine is 0
            scores = torch.matmul(self.rotary(key, positions), rotated_query)[..., 0]
        else:
            projected_query = torch.bmm(query, self.key_weight).transpose(0, 1)
            scores = torch.bmm(projected_query, states.transpose(1, 2))
        if self.relative is not None:
            position_scores = self.relative(positions[:, :1], positions, query.transpose(0, 1)[:, :, None], key)
            scores = scores + position_scores[:, :, 0]
        mask = mask[:, 0]
        if self.position_bias is not None:
            columns = columns_of(positions)
            mask = mask + biases(self.position_bias, columns[:, :1], columns)[:, :, 0]
        if self.window is not None:
            mask = mask.masked_fill(positions[:, None] > self.window, MASKED)
        weights = torch.softmax(scores * self.scale + mask, dim=-1)
        summed = torch.bmm(weights, states).transpose(0, 1)
        context = torch.bmm(summed, self.value_weight).transpose(0, 1).flatten(1)
        return context if self.value_bias is None else context + self.value_bias


class RotaryEmbedding(nn.Module):
    """Rotates queries or keys (rows, heads, length, head size) by their positions (rows, length)."""

    def __init__(self, rotary: Rotary):
        super().__init__()
        self.register_buffer("inverse_frequencies", rotary.inverse_frequencies)
        self.scaling = rotary.scaling

    def forward(self, heads: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return rotate(heads, positions, self.inverse_frequencies, self.scaling)


class RelativeScores(nn.Module):
    """Relative-position scores of DeBERTa, before scaling: (rows, heads, queries, length)."""

    def __init__(self, terms: RelativeTerms, index: torch.Tensor):
        super().__init__()
        self.register_buffer("key_terms", terms.key)
        self.register_buffer("query_terms", terms.query)
        self.register_buffer("index", index)
        self.max_distance = (len(index) + 1) // 2

    def forward(
        self, query_positions: torch.Tensor, key_positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        distances = query_positions[:, :, None] - key_positions[:, None, :]
        buckets = self.index[distances.clamp(1 - self.max_distance, self.max_distance - 1) + self.max_distance - 1]
        return relative_scores(RelativeTerms(self.key_terms, self.query_terms), buckets, query, key)


def _relative_module(encoder: Encoder, layer: Layer) -> RelativeScores | None:
    return None if layer.relative is None else RelativeScores(layer.relative, encoder.relative_index)


def _split_heads(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reshapes (out, in) to (heads, head size, in)."""
    return weight.view(heads, -1, weight.shape[1])
