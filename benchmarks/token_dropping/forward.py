"""The forward pass of a BERT encoder with exits, on rows of equal length, with weighted tokens.

Rows of one length need no attention mask. A token of weight `w` counts as `w` equal tokens in the attention: its scores
are raised by `log w`. So a token can stand for merged ones, and the gradient with respect to the weights at 1 is the
first-order effect of a token's removal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from itrex_sweet.artifact import open_artifact
from itrex_sweet.runtime.encoder import Head, Layer, Linear, Norm
from itrex_sweet.runtime.torch_encoder import load_torch_encoder

ROWS = 32  # of a batch


class Forward:
    """Computes layers and exits of an artifact; linear layers in bfloat16 on request, all else in float32.

    Args:
        folder: of a float32 artifact of a BERT model.
        bfloat16: of weights and inputs of the layers' linear parts.

    Attributes:
        exits: counts of layers, the last is the full depth.
    """

    def __init__(self, folder: Path, bfloat16: bool = False):
        artifact = open_artifact(folder)
        self._encoder = load_torch_encoder(artifact)
        self._dtype = torch.bfloat16 if bfloat16 else torch.float32
        self._cast: dict[int, tuple[Tensor, Tensor]] = {}
        self.exits: tuple[int, ...] = tuple(artifact.exits)
        self.depth = self.exits[-1]
        self._heads = self._encoder.num_attention_heads

    def embed(self, ids: Tensor, types: Tensor) -> Tensor:
        """Returns the states (rows, tokens, hidden) before layer 1."""
        tables = self._encoder.embeddings
        positions = tables.positions[: ids.shape[1]]
        return _norm(tables.norm, tables.words[ids] + positions + tables.token_types[types])

    def layer(self, number: int, states: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Computes a layer of the trunk for every token.

        Args:
            number: of the layer, from 1.
            states: (rows, tokens, hidden) before it.
            weights: (rows, tokens), how many tokens each one counts as; 1 by default.

        Returns:
            the states after it; the attention of the first token, and that of all tokens (rows, tokens), each the mean
            over heads, and the second also over queries.
        """
        layer = self._encoder.trunk[number - 1]
        query, key, value = (
            self._split(self._linear(each, states).float()) for each in (layer.query, layer.key, layer.value)
        )
        scores = query @ key.transpose(-1, -2) / self._encoder.score_scale
        if weights is not None:
            scores = scores + weights.log()[:, None, None]
        attention = scores.softmax(-1)
        context = (attention @ value).transpose(1, 2).flatten(2)
        return self._rest(layer, states, context), attention[:, :, 0].mean(1), attention.mean((1, 2))

    def probe(self, exit_: int, states: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Computes an exit from the states before its layer.

        Returns:
            logits (rows, labels), and the attention of the first token (rows, tokens), the mean over heads.
        """
        probe = self._encoder.probes[self.exits.index(exit_)]
        state, attention = self._first_token(probe.layer, states, weights)
        return _head(probe.head, state), attention

    def coming_attention(self, number: int, states: Tensor) -> Tensor:
        """Returns the attention of the first token in a layer of the trunk, from the states before it."""
        return self._first_token(self._encoder.trunk[number - 1], states, None)[1]

    def _first_token(self, layer: Layer, states: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the state of the first token after a layer, and its attention; forms neither keys nor values."""
        first, size = states[:, :1], states.shape[-1] // self._heads
        query = self._linear(layer.query, first).float().view(-1, self._heads, size)
        keyed = torch.einsum("rhd,hde->rhe", query, layer.key.weight.view(self._heads, size, -1))
        scores = keyed @ states.transpose(-1, -2) / self._encoder.score_scale
        if weights is not None:
            scores = scores + weights.log()[:, None]
        attention = scores.softmax(-1)
        values = layer.value.weight.view(self._heads, size, -1)
        context = torch.einsum("rhe,hde->rhd", attention @ states, values).flatten(1) + layer.value.bias
        return self._rest(layer, first, context[:, None])[:, 0], attention.mean(1)

    def _rest(self, layer: Layer, states: Tensor, context: Tensor) -> Tensor:
        """Returns the states after a layer: output projection, feed-forward part, residuals and norms."""
        states = _norm(layer.attention_norm, states + self._linear(layer.attention_output, context))
        inner = functional.gelu(self._linear(layer.up, states))
        return _norm(layer.output_norm, states + self._linear(layer.down, inner))

    def _linear(self, linear: Linear, states: Tensor) -> Tensor:
        if id(linear) not in self._cast:
            with torch.inference_mode(False):  # the gradient passes through them later
                self._cast[id(linear)] = (linear.weight.to(self._dtype), linear.bias.to(self._dtype))
        return functional.linear(states.to(self._dtype), *self._cast[id(linear)])

    def _split(self, states: Tensor) -> Tensor:
        rows, tokens, hidden = states.shape
        return states.view(rows, tokens, self._heads, hidden // self._heads).transpose(1, 2)


def batches_of(tokenizer: Any, texts: list, max_length: int) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Yields batches of rows of equal length: indices of the rows, token ids and token types."""
    pairs = list(zip(*texts, strict=True)) if texts and not isinstance(texts[0], str) else [texts]
    encoded = tokenizer(*map(list, pairs), truncation=True, max_length=max_length, return_token_type_ids=True)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        for part in np.split(rows, range(ROWS, len(rows), ROWS)):
            ids, types = (
                torch.tensor([encoded[name][row] for row in part]) for name in ("input_ids", "token_type_ids")
            )
            yield part, ids, types


def _linear(linear: Linear, states: Tensor) -> Tensor:
    return functional.linear(states, linear.weight, linear.bias)


def _norm(norm: Norm, states: Tensor) -> Tensor:
    return functional.layer_norm(states, (states.shape[-1],), norm.weight, norm.bias, norm.eps)


def _head(head: Head, state: Tensor) -> Tensor:
    return _linear(head.classifier, torch.tanh(_linear(head.dense, state)))
