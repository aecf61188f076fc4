"""The weights of a model under canonical names, the same for every family, and their order: segments and probes.

The tensors are NumPy arrays or torch tensors; the native engine reads both, so this module imports neither.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Linear:
    """`x @ weight.T + bias`; weight (out, in), bias (out,) or none."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class QuantizedLinear:
    """A linear layer in 8-bit integers: the input is quantized, products are summed in int32, the sum is scaled back.

    Args:
        weight: (out, in) int8, symmetric.
        weight_scale: (out,) float32, one per output channel.
        bias: (out,) float32, or none.
        input_scale: of every input, fixed at calibration; `None` where each row of the input gets its own.
        input_zero_point: what stands for 0 in the uint8 input, from 0 to 255; `None` with `input_scale`.
        input_smoothing: (in,) float32 by which the input is multiplied before it is quantized (SmoothQuant, arXiv
            2211.10438, equation 3; the weight holds the inverse), or none.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    input_scale: float | None
    input_zero_point: int | None
    input_smoothing: Tensor | None

    def dequantized(self) -> Linear:
        """Returns the float32 layer that it approximates, with smoothing undone."""
        weight = self.weight * self.weight_scale[:, None]
        return Linear(weight if self.input_smoothing is None else weight * self.input_smoothing, self.bias)


AnyLinear = Linear | QuantizedLinear


@dataclass(frozen=True)
class Norm:
    """Layer norm over the last axis; weight and bias (hidden,), or no bias.

    With `is_rms` the mean is not subtracted: the root mean square takes the place of the standard deviation (RMSNorm,
    arXiv 1910.07467).
    """

    weight: Tensor
    bias: Tensor | None
    eps: float
    is_rms: bool = False


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of queries and keys (RoFormer, arXiv 2104.09864), in the rotate-half layout.

    Elements `d` and `d + head size / 2` of a head form a pair, which position `p` rotates by `p · frequency[d]`.

    Args:
        inverse_frequencies: (head size / 2,) float32; they contain theta and any known scaling of it.
        scaling: factor of cosine and sine (YaRN's attention factor).
    """

    inverse_frequencies: Tensor
    scaling: float = 1.0


@dataclass(frozen=True)
class RelativeTerms:
    """Position keys and queries of one DeBERTa layer, by relative-position bucket; `None` where a term is off.

    Args:
        key: (heads, 2 span, head size), for content→position scores.
        query: (heads, 2 span, head size), for position→content scores.
    """

    key: Tensor | None
    query: Tensor | None


@dataclass(frozen=True)
class Convolution:
    """DeBERTa-v2's convolution beside the first layer; weight (hidden, hidden / groups, width)."""

    weight: Tensor
    bias: Tensor
    groups: int
    activation: str
    norm: Norm


@dataclass(frozen=True)
class Layer:
    """One encoder layer; see `Encoder.norm_first` for the place of the norms.

    Args:
        query, key, value, attention_output: the projections of the attention.
        attention_norm: after the residual of the attention, or before the attention in a pre-norm layer; there it may
            be absent.
        up, down: the feed-forward part, `down(activation(up(x)))`, or `down(activation(up(x)) * gate(x))`.
        output_norm: after the residual of the feed-forward part, or before that part in a pre-norm layer.
        relative: terms of disentangled attention.
        convolution: beside the layer.
        gate: as large as `up`.
        rotary: rotates queries and keys.
        window: token `i` attends to the tokens `j` with `|i - j| <= window`; `None` for all.
    """

    query: AnyLinear
    key: AnyLinear
    value: AnyLinear
    attention_output: AnyLinear
    attention_norm: Norm | None
    up: AnyLinear
    down: AnyLinear
    output_norm: Norm
    relative: RelativeTerms | None = None
    convolution: Convolution | None = None
    gate: AnyLinear | None = None
    rotary: Rotary | None = None
    window: int | None = None


@dataclass(frozen=True)
class QuantizedTable:
    """An embedding table in 8-bit integers; indexing it with entries returns their rows in float32.

    Args:
        weight: (entries, size) int8, symmetric.
        scale: (entries,) float32, one per entry.
    """

    weight: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the table."""
        return tuple(self.weight.shape)

    def __getitem__(self, entries: Tensor) -> Tensor:
        """Returns rows: (..., size) float32 for integers of any shape."""
        return self.weight[entries] * self.scale[entries][..., None]


@dataclass(frozen=True)
class Embeddings:
    """Tables (entries, size); positions, token types and the norm may be absent, and a projection may stand before or
    after the norm.
    """

    words: Tensor | QuantizedTable
    positions: Tensor | None
    token_types: Tensor | None
    norm: Norm | None
    projection_before_norm: Linear | None
    projection_after_norm: Linear | None


@dataclass(frozen=True)
class Head:
    """A classification head: linear, activation, norm if there is one, linear.

    Args:
        dense: reads the pooled state.
        activation: after `dense`.
        classifier: gives the logits. Behind the labels, it may have one more output, see `Encoder.num_labels`.
        norm: between activation and `classifier`.
        pooling: `"first"`, `dense` reads the state of the first token; `"mean"`, it reads the mean over tokens; or
            `"late"`, it reads the state of every token, and the mean is taken before `classifier`.
    """

    dense: Linear
    activation: str
    classifier: Linear
    norm: Norm | None = None
    pooling: str = "first"


@dataclass(frozen=True)
class Probe:
    """The computation of one exit's logits from the states before its last layer.

    Args:
        layer: a layer of the trunk itself, or the exit's private copy of one. Run for the first token alone, or for
            every token if the head pools them.
        head: reads the states after layer and norm.
        norm: applied to the states after the layer, in a pre-norm model: for the last exit, the model's final norm;
            for another, its own copy.
    """

    layer: Layer
    head: Head
    norm: Norm | None = None


@dataclass(frozen=True)
class Encoder:
    """The weights of a model, and the order of computation: segments and probes alternate.

    Args:
        segments: one per exit, in order: the layers of the trunk that are run in full between the probe before (at
            first, the embeddings) and this exit's.
        probes: one per exit, in order. The layer of the last one is the last of the trunk.
        num_labels: of every exit. A head with one output more gives, as the last, the logit of being right.
        num_attention_heads: of every layer.
        activation: of the feed-forward part.
        score_scale: the attention scores' divisor.
        padding_idx: see `TokenBatch`; position embeddings then start at this id + 1.
        relative_index: (2 positions - 1,) int64: bucket of relative position `i - (positions - 1)`, where attention
            is disentangled.
        position_bias: (heads, 2 reach - 1) float32, added to the divided scores of every layer: for a head, a value of
            the distance `i - (reach - 1)` of a key's position and a query's; greater distances count as the greatest.
        norm_first: every layer is pre-norm, `x + part(norm(x))`; otherwise the norms follow the residuals,
            `norm(x + part(x))`.
    """

    embeddings: Embeddings
    segments: tuple[tuple[Layer, ...], ...]
    probes: tuple[Probe, ...]
    num_labels: int
    num_attention_heads: int
    activation: str
    score_scale: float
    padding_idx: int | None
    max_tokens: int | None
    relative_index: Tensor | None
    position_bias: Tensor | None = None
    norm_first: bool = False

    @property
    def trunk(self) -> tuple[Layer, ...]:
        """The layers of the model without its exits, first to last."""
        return (*chain.from_iterable(self.segments), self.probes[-1].layer)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer once: those run in full, the trunk's last, then the exits' private ones, in their order."""
        probed = [probe.layer for probe in self.probes]
        return tuple({id(layer): layer for layer in (*self.trunk, *probed)}.values())

    @property
    def hidden_size(self) -> int:
        """Size of a token's state."""
        return len(self.probes[-1].layer.output_norm.weight)

    def quantized_linears(self) -> list[QuantizedLinear]:
        """Returns the quantized linear layers."""
        parts = [getattr(layer, field.name) for layer in self.layers for field in dataclasses.fields(layer)]
        return [part for part in parts if isinstance(part, QuantizedLinear)]


def float_of(linear: AnyLinear) -> Linear:
    """Returns a linear layer in float32, dequantized if necessary."""
    return linear.dequantized() if isinstance(linear, QuantizedLinear) else linear
