"""The reference backend in plain torch, which defines the results of the other backends.

Linear layers run over all packed tokens at once, quantized ones in exact integers (`runtime.int8_linear`), the rest in
float32. Attention runs once per group of rows of equal length, without padding or attention mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import linear
from transformers.activations import ACT2FN

from itrex_sweet.artifact import Artifact
from itrex_sweet.runtime.backends.base import EncoderBackend
from itrex_sweet.runtime.disentangled_attention import first_token_relative_scores, relative_scores
from itrex_sweet.runtime.encoder import (
    AnyLinear,
    Convolution,
    Encoder,
    Head,
    Layer,
    Linear,
    Probe,
    QuantizedLinear,
    float_of,
)
from itrex_sweet.runtime.int8_linear import int8_linear
from itrex_sweet.runtime.native.cores import validate_threads
from itrex_sweet.runtime.norms import apply_norm
from itrex_sweet.runtime.position_bias import biases, columns_of
from itrex_sweet.runtime.ragged import TokenBatch, cumulative, groups_of_equal_length, token_index
from itrex_sweet.runtime.rotary_attention import rotate, windowed_attention
from itrex_sweet.runtime.torch_encoder import load_torch_encoder, with_torch_tensors
from itrex_sweet.runtime.torch_threads import computing_with, on_own_threads, torch_call


@dataclass(frozen=True)
class PackedHidden:
    """Hidden states of several rows, concatenated without padding.

    Args:
        states: (tokens, hidden) float32.
        cu_seqlens: (rows + 1,) int64.
        position_ids: (tokens,) int64, for relative positions.
    """

    states: torch.Tensor
    cu_seqlens: np.ndarray
    position_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    def select(self, rows: np.ndarray) -> PackedHidden:
        tokens, cu_seqlens = token_index(self.cu_seqlens, rows)
        with torch_call():
            states = self.states[torch.from_numpy(tokens)]
        return PackedHidden(states, cu_seqlens, self.position_ids[tokens])

    def with_states(self, states: torch.Tensor) -> PackedHidden:
        """Returns the same rows with other states."""
        return PackedHidden(states, self.cu_seqlens, self.position_ids)

    def groups(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns token indices and position ids (rows, length) for each group of rows of equal length."""
        return [
            (torch.from_numpy(index), torch.from_numpy(self.position_ids[index]))
            for index in groups_of_equal_length(self.cu_seqlens)
        ]


@dataclass(frozen=True)
class _FullLayer:
    """A layer that is run for every token.

    Args:
        layer: the encoder's layer.
        projections: query, key and value; concatenated to one layer unless they are quantized.
    """

    layer: Layer
    projections: tuple[AnyLinear, ...]

    @classmethod
    def from_layer(cls, layer: Layer) -> _FullLayer:
        """Creates one from a layer."""
        return cls(layer, _stack(layer.query, layer.key, layer.value))


class TorchBackend(EncoderBackend):
    """Runs an early-exit artifact with torch on the CPU.

    In a forked child it uses one thread (`runtime.torch_threads`).

    Args:
        artifact: opened by `open_artifact`.
        encoder: replaces the artifact's own weights.
        threads: number of threads of its calls; by default `torch.get_num_threads()` at each call.

    Raises:
        ConfigError: an invalid number of threads.
    """

    name = "torch"

    def __init__(self, artifact: Artifact, encoder: Encoder | None = None, threads: int | None = None):
        self.asked_threads = None if threads is None else validate_threads(threads)
        with torch_call(self.asked_threads):
            self.encoder = load_torch_encoder(artifact) if encoder is None else with_torch_tensors(encoder)
            super().__init__(artifact, self.encoder)
            self._activation = ACT2FN[self.encoder.activation]
            self._segments = [list(map(_FullLayer.from_layer, segment)) for segment in self.encoder.segments]
            self._probes = [
                dataclasses.replace(probe, layer=_with_float_kv(probe.layer)) if _reads_first_token(probe) else probe
                for probe in self.encoder.probes
            ]

    @property
    def threads(self) -> int:
        """Number of threads that a call would use now."""
        with computing_with(self.asked_threads):
            return torch.get_num_threads()

    @on_own_threads
    @torch.inference_mode()
    def embed(self, batch: TokenBatch) -> PackedHidden:
        hidden = PackedHidden(self._embeddings(batch), batch.cu_seqlens, batch.position_ids)
        return self._segment(0, hidden)

    @on_own_threads
    @torch.inference_mode()
    def probe(self, exit_index: int, hidden: PackedHidden) -> np.ndarray:
        probe = self._probes[exit_index]
        states = self._first_states(probe, hidden) if _reads_first_token(probe) else self._states(probe, hidden)
        return _run_head(probe.head, states, hidden.cu_seqlens).numpy()

    @on_own_threads
    @torch.inference_mode()
    def advance(self, exit_index: int, hidden: PackedHidden) -> PackedHidden:
        return self._segment(exit_index + 1, hidden)

    @on_own_threads
    @torch.inference_mode()
    def merge(self, parts: Sequence[PackedHidden]) -> PackedHidden:
        if len(parts) == 1:
            return parts[0]
        return PackedHidden(
            torch.cat([part.states for part in parts]),
            cumulative(np.concatenate([np.diff(part.cu_seqlens) for part in parts])),
            np.concatenate([part.position_ids for part in parts]),
        )

    # ------------------------------------------------------------------ embeddings

    def _embeddings(self, batch: TokenBatch) -> torch.Tensor:
        tables = self.encoder.embeddings
        states = tables.words[torch.from_numpy(batch.input_ids)]
        if tables.token_types is not None:
            states = states + tables.token_types[torch.from_numpy(batch.token_type_ids)]
        if tables.positions is not None:
            offset = 0 if self.padding_idx is None else self.padding_idx + 1
            states = states + tables.positions[torch.from_numpy(batch.position_ids + offset)]
        if tables.projection_before_norm is not None:
            states = _linear(tables.projection_before_norm, states)
        if tables.norm is not None:
            states = apply_norm(tables.norm, states)
        if tables.projection_after_norm is not None:
            states = _linear(tables.projection_after_norm, states)
        return states

    # ------------------------------------------------------------------ layers in full

    def _segment(self, index: int, hidden: PackedHidden) -> PackedHidden:
        layers = self._segments[index]
        groups = hidden.groups() if layers else []
        for layer in layers:
            hidden = hidden.with_states(self._layer(layer, hidden.states, groups))
        return hidden

    def _layer(
        self, full: _FullLayer, states: torch.Tensor, groups: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        """Runs a layer for every token: (tokens, hidden) → (tokens, hidden)."""
        layer = full.layer
        entering = self._normed_before_attention(layer, states)
        projected = _concatenate([_linear(part, entering) for part in full.projections])
        context = states.new_empty(len(states), layer.value.weight.shape[0])
        for tokens, positions in groups:
            context[tokens.flatten()] = self._attention(layer, projected[tokens], positions).flatten(0, 1)
        output = self._rest(layer, context, states)
        if layer.convolution is not None:
            output = _convolve(layer.convolution, states, output, groups)
        return output

    def _attention(self, layer: Layer, projected: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Computes self-attention of rows of equal length: (rows, length, 3 · size) → (rows, length, size)."""
        rows, length, _ = projected.shape
        query, key, value = projected.view(rows, length, 3, self.encoder.num_attention_heads, -1).permute(2, 0, 3, 1, 4)
        scale = 1.0 / self.encoder.score_scale
        if layer.rotary is not None:
            frequencies = layer.rotary.inverse_frequencies, layer.rotary.scaling
            query, key = (rotate(heads, positions, *frequencies) for heads in (query, key))
        if layer.window is not None and int((positions[:, -1] - positions[:, 0]).max()) > layer.window:
            context = windowed_attention(query, key, value, positions, layer.window, scale)
            return context.transpose(1, 2).flatten(2)
        scores = None
        if layer.relative is not None:
            distances = positions[:, :, None] - positions[:, None, :]
            scores = relative_scores(layer.relative, self._buckets(distances), query, key) / self.encoder.score_scale
        if self.encoder.position_bias is not None:
            columns = columns_of(positions)
            scores = biases(self.encoder.position_bias, columns, columns)
        context = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=scores, scale=scale)
        return context.transpose(1, 2).flatten(2)

    def _normed_before_attention(self, layer: Layer, states: torch.Tensor) -> torch.Tensor:
        """Returns the input of a layer's projections."""
        if not self.encoder.norm_first or layer.attention_norm is None:
            return states
        return apply_norm(layer.attention_norm, states)

    def _rest(self, layer: Layer, context: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Runs a layer from after its attention: context (tokens, size) and the layer's input (tokens, hidden)."""
        attended = _linear(layer.attention_output, context) + states
        if self.encoder.norm_first:
            return self._feed_forward(layer, apply_norm(layer.output_norm, attended)) + attended
        attended = apply_norm(layer.attention_norm, attended)
        return apply_norm(layer.output_norm, self._feed_forward(layer, attended) + attended)

    def _feed_forward(self, layer: Layer, states: torch.Tensor) -> torch.Tensor:
        inner = self._activation(_linear(layer.up, states))
        if layer.gate is not None:
            inner = inner * _linear(layer.gate, states)
        return _linear(layer.down, inner)

    def _buckets(self, distances: torch.Tensor) -> torch.Tensor:
        """Returns the relative-position buckets of distances between positions."""
        index = self.encoder.relative_index
        reach = (len(index) + 1) // 2
        return index[distances.clamp(1 - reach, reach - 1) + reach - 1]

    # ------------------------------------------------------------------ the probe

    def _first_states(self, probe: Probe, hidden: PackedHidden) -> torch.Tensor:
        """Computes the states of the first tokens after a probe's layer and norm: (rows, hidden)."""
        layer = probe.layer
        first = hidden.states[torch.from_numpy(hidden.cu_seqlens[:-1])]
        states = self._rest(layer, self._first_token_context(layer, hidden), first)
        if layer.convolution is not None:
            states = _convolve_first_tokens(layer.convolution, hidden, states)
        return states if probe.norm is None else apply_norm(probe.norm, states)

    def _states(self, probe: Probe, hidden: PackedHidden) -> torch.Tensor:
        """Computes the states of all tokens after a probe's layer and norm: (tokens, hidden)."""
        states = self._layer(_FullLayer.from_layer(probe.layer), hidden.states, hidden.groups())
        return states if probe.norm is None else apply_norm(probe.norm, states)

    def _first_token_context(self, layer: Layer, hidden: PackedHidden) -> torch.Tensor:
        """Computes attention for the first token only, without computing keys and values: (rows, size).

        The query is projected through the key weights, `(W_kᵀ q) · x_j = q · (W_k x_j)`; the key bias adds the same
        to every score and cancels in the softmax. The value weights are applied to the weighted sum of the states;
        since the attention weights sum to 1, the value bias is added once. Rotary keys are computed, since each is
        rotated by another angle; the query at position 0 is not rotated.
        """
        heads, scale = self.encoder.num_attention_heads, self.encoder.score_scale
        key = layer.key.weight.view(heads, -1, layer.key.weight.shape[1])
        value = layer.value.weight.view(heads, -1, layer.value.weight.shape[1])
        entering = self._normed_before_attention(layer, hidden.states)
        first = entering[torch.from_numpy(hidden.cu_seqlens[:-1])]
        query = _linear(layer.query, first).view(len(first), heads, -1)
        if layer.rotary is not None:
            query = query * layer.rotary.scaling  # of the cosine of 0; the sine is 0
        projected_query = None if layer.rotary is not None else torch.einsum("rhd,hdc->rhc", query, key)
        summed = entering.new_empty(len(first), heads, entering.shape[1])
        row_of = torch.from_numpy(np.repeat(np.arange(len(hidden)), np.diff(hidden.cu_seqlens)))
        for tokens, positions in hidden.groups():
            rows = row_of[tokens[:, 0]]
            outside = None
            if layer.window is not None:
                reached = int((positions <= layer.window).sum(dim=1).max())
                tokens, positions = tokens[:, :reached], positions[:, :reached]
                outside = (positions > layer.window)[:, None]
            states = entering[tokens]
            if projected_query is None:
                scores = torch.einsum("rhd,rhjd->rhj", query[rows], self._rotary_keys(layer, states, positions))
            else:
                scores = torch.einsum("rhc,rjc->rhj", projected_query[rows], states)
            if layer.relative is not None:
                buckets = self._buckets(positions[:, :1] - positions)
                scores = scores + first_token_relative_scores(layer, buckets, query[rows], states)
            if outside is not None:
                scores = scores.masked_fill(outside, -torch.inf)
            scores = scores / scale
            if self.encoder.position_bias is not None:
                columns = columns_of(positions)
                scores = scores + biases(self.encoder.position_bias, columns[:, :1], columns)[:, :, 0]
            weights = torch.softmax(scores, dim=-1)
            summed[rows] = torch.einsum("rhj,rjc->rhc", weights, states)
        context = torch.einsum("rhc,hdc->rhd", summed, value).flatten(1)
        return context if layer.value.bias is None else context + layer.value.bias

    def _rotary_keys(self, layer: Layer, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Returns the rotated keys of states: (rows, length, hidden) → (rows, heads, length, head size)."""
        keys = _linear(layer.key, states.flatten(0, 1))
        keys = keys.view(*states.shape[:2], self.encoder.num_attention_heads, -1).transpose(1, 2)
        return rotate(keys, positions, layer.rotary.inverse_frequencies, layer.rotary.scaling)


# ---------------------------------------------------------------------------------------------------- arithmetic


def _linear(layer: AnyLinear, states: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, QuantizedLinear):
        return int8_linear(layer, states)
    return linear(states, layer.weight, layer.bias)


def _reads_first_token(probe: Probe) -> bool:
    return probe.head.pooling == "first"


def _with_float_kv(layer: Layer) -> Layer:
    """Returns the layer with dequantized key and value weights, which the probe multiplies in another order.

    Rotary keys are computed as in the full layer.
    """
    key = layer.key if layer.rotary is not None else float_of(layer.key)
    return dataclasses.replace(layer, key=key, value=float_of(layer.value))


def _stack(*layers: AnyLinear) -> tuple[AnyLinear, ...]:
    """Concatenates linear layers with the same input to one, unless they are quantized."""
    if any(isinstance(layer, QuantizedLinear) for layer in layers):
        return layers
    biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
    return (Linear(torch.cat([layer.weight for layer in layers]), torch.cat(biases)),)


def _concatenate(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _run_head(head: Head, states: torch.Tensor, cu_seqlens: np.ndarray) -> torch.Tensor:
    """Computes logits (rows, labels) from the states of the first tokens, or of all tokens if the head pools them."""
    if head.pooling == "mean":
        states = _row_means(states, cu_seqlens)
    states = ACT2FN[head.activation](_linear(head.dense, states))
    states = states if head.norm is None else apply_norm(head.norm, states)
    if head.pooling == "late":
        states = _row_means(states, cu_seqlens)
    return _linear(head.classifier, states)


def _row_means(states: torch.Tensor, cu_seqlens: np.ndarray) -> torch.Tensor:
    """Averages the states of each row: (tokens, size) → (rows, size)."""
    return torch.stack([row.mean(dim=0) for row in states.split(np.diff(cu_seqlens).tolist())])


def _convolve(
    convolution: Convolution,
    before: torch.Tensor,
    after: torch.Tensor,
    groups: list[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """Adds the convolution of a layer's input, over positions, to its output."""
    added = torch.empty_like(after)
    half = convolution.weight.shape[2] // 2
    for tokens, positions in groups:
        rows = torch.arange(len(tokens))[:, None].expand_as(tokens)
        padded = before.new_zeros(len(tokens), int(positions.max()) + 1, before.shape[1])
        padded[rows, positions] = before[tokens]
        convolved = torch.nn.functional.conv1d(
            padded.transpose(1, 2), convolution.weight, convolution.bias, padding=half, groups=convolution.groups
        )
        added[tokens] = convolved.transpose(1, 2)[rows, positions]
    return apply_norm(convolution.norm, after + ACT2FN[convolution.activation](added))


def _convolve_first_tokens(convolution: Convolution, hidden: PackedHidden, after: torch.Tensor) -> torch.Tensor:
    """Convolves the first token of each row only, whose left neighbours are zeros."""
    half = convolution.weight.shape[2] // 2
    near = hidden.position_ids <= half
    rows = np.repeat(np.arange(len(hidden)), np.diff(hidden.cu_seqlens))[near]
    window = after.new_zeros(len(hidden), 2 * half + 1, after.shape[1])
    columns = torch.from_numpy(hidden.position_ids[near] + half)
    window[torch.from_numpy(rows), columns] = hidden.states[torch.from_numpy(near)]
    convolved = torch.nn.functional.conv1d(
        window.transpose(1, 2), convolution.weight, convolution.bias, groups=convolution.groups
    )
    return apply_norm(convolution.norm, after + ACT2FN[convolution.activation](convolved[:, :, 0]))
