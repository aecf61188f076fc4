"""An exit's private copy of an encoder layer, which computes the first token only."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

from itrex_sweet.artifact.architecture import Architecture
from itrex_sweet.errors import UnsupportedModelError
from itrex_sweet.families import Family
from itrex_sweet.training.dropout import dropout
from itrex_sweet.training.peft_models import merged_module_copy

_RELATIVE = ("position_key", "position_query")


class PrivateLayer(nn.Module):
    """A copy of an encoder layer that computes the output of the first token without forming keys and values.

    The query is projected through the key weights, `(W_kᵀ q) · x_j = q · (W_k x_j)`, and the value weights are applied
    to the attention-weighted sum of the hidden states. This costs O(hidden²) + O(heads · tokens · hidden) per row
    instead of O(tokens · hidden²), and equals the layer's output up to rounding. A copy of a layer with rotary
    positions has neither rotation, which would need the key of every token, nor window, which would hide all but the
    beginning of a text (`benchmarks/rotary_private_layers.py`). The state dict has the family's names below a layer;
    adapters are merged.

    Args:
        layer: layer of a Hugging Face encoder; not changed.
        family: the model's family.
        config: the model's config.
        index: of the layer in the model, from 0.

    Raises:
        UnsupportedModelError: weights that are not floating-point.
    """

    def __init__(self, layer: nn.Module, family: Family, config: Any, index: int):
        super().__init__()
        model = Architecture(config, family)
        self._paths = dict(family.layer)
        if not model.has_attention_norm(index):
            del self._paths["attention_norm"]
        if model.is_relative:
            for name in _RELATIVE:
                path = family.relative[name]
                if _has(layer, path):
                    self._paths[name] = path
        for path in self._paths.values():
            _set_at(self, path, _copy_at(layer, path))
        self._heads, self._key_value_heads = model.heads, model.key_value_heads
        self._scale = (model.head_size * model.score_terms) ** 0.5
        self._buckets = model.buckets if model.is_relative else 0
        self._terms = model.position_terms if model.is_relative else []
        self._activation = ACT2FN[getattr(config, family.hidden_act)]
        self._rates = family.dropouts_of_layer(config)
        self._norm_first, self._splits_by_head = family.norm_first, family.splits_by_head

    def forward(
        self,
        states: torch.Tensor,
        mask: torch.Tensor | None = None,
        table: torch.Tensor | None = None,
        relative_pos: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Computes the hidden state of the first token after the layer.

        Args:
            states: (rows, tokens, hidden), input of the layer.
            mask: (rows, tokens), 0 at padding; `None` for no padding.
            table: (2 * buckets, hidden), DeBERTa's normalized relative-position embeddings (`rel_embeddings`).
            relative_pos: (…, tokens, tokens) int64, DeBERTa's buckets of query position minus key position.
            bias: (heads, tokens), MPNet's position bias of the first token.
            generator: draws dropout; `None` for no dropout.

        Returns:
            (rows, hidden).
        """
        first = states[:, 0]
        if self._norm_first and "attention_norm" in self._paths:
            states = self._part("attention_norm")(states)
        query, key, value = self._projections()
        query_heads = _project_heads(query, states[:, 0], self._heads)
        scores = _project_through_keys(query_heads, key, self._heads) @ states.transpose(1, 2)
        if key[1] is not None:
            scores = scores + torch.einsum("rhd,hd->rh", query_heads, key[1].view(self._heads, -1))[..., None]
        if table is not None and self._terms:
            table = self._drop("table", table, generator)
            scores = scores + self._relative_scores(query_heads, states, key, table, self._table_indices(relative_pos))
        scores = scores / self._scale
        if bias is not None:
            scores = scores + bias
        if mask is not None:
            scores = scores.masked_fill(mask[:, None] == 0, torch.finfo(scores.dtype).min)
        weights = self._drop("attention", torch.softmax(scores, dim=-1), generator)
        context = _attend(weights, states, value, self._heads)
        attended = self._drop("attention_output", self._part("attention_output")(context), generator) + first
        if self._norm_first:
            return self._feed_forward(self._part("output_norm")(attended), generator) + attended
        attended = self._part("attention_norm")(attended)
        return self._part("output_norm")(self._feed_forward(attended, generator) + attended)

    @torch.no_grad()
    def attend_evenly(self) -> None:
        """Sets the query projection to zero, so that the first token attends to all tokens equally, apart from
        DeBERTa's and MPNet's relative positions.

        In the first layers of a pretrained encoder the first token attends to itself and to separators, so that its
        state hardly differs between texts; training from there may take hundreds of steps to find the words.
        """
        query = self._projections()[0]
        if "query_key_value" in self._paths:
            fused = self._part("query_key_value").weight
            rows = fused.view(self._heads, 3, -1, fused.shape[1])[:, 0] if self._splits_by_head else fused.chunk(3)[0]
            query = (rows, query[1])
        for part in query:
            if part is not None:
                part.zero_()

    def _feed_forward(self, states: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        if "up_gate" in self._paths:
            up, gate = self._part("up_gate")(states).chunk(2, dim=-1)
            inner = self._activation(up) * gate
        else:
            inner = self._activation(self._part("up")(states))
            if "gate" in self._paths:
                inner = inner * self._part("gate")(states)
        return self._drop("down", self._part("down")(self._drop("inner", inner, generator)), generator)

    def _part(self, name: str) -> Any:
        return attrgetter(self._paths[name])(self)

    def _drop(self, place: str, states: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        return dropout(states, self._rates.get(place, 0.0), generator)

    def _projections(self) -> tuple[_Projection, _Projection, _Projection]:
        if "query_key_value" not in self._paths:
            query, key, value = ((part.weight, part.bias) for part in map(self._part, ("query", "key", "value")))
            return query, self._for_every_query_head(key), self._for_every_query_head(value)
        fused = self._part("query_key_value")
        if not self._splits_by_head:
            biases = (None,) * 3 if fused.bias is None else fused.bias.chunk(3)
            return tuple(zip(fused.weight.chunk(3), biases, strict=True))
        query, key, value = fused.weight.view(self._heads, 3, -1, fused.weight.shape[1]).unbind(1)
        return (
            (query.flatten(0, 1), self._part("query_bias")),
            (key.flatten(0, 1), None),
            (value.flatten(0, 1), self._part("value_bias")),
        )

    def _for_every_query_head(self, projection: _Projection) -> _Projection:
        """Repeats each head of keys or values for the query heads that read it."""
        if self._key_value_heads == self._heads:
            return projection
        times = self._heads // self._key_value_heads
        split = (part if part is None else part.unflatten(0, (self._key_value_heads, -1)) for part in projection)
        return tuple(part if part is None else part.repeat_interleave(times, 0).flatten(0, 1) for part in split)

    def _table_indices(self, relative_pos: torch.Tensor) -> torch.Tensor:
        """Returns (tokens,), the row of the table for the first position minus each token's position."""
        tokens = relative_pos.shape[-1]
        from_first = relative_pos[..., 0, :].reshape(-1, tokens)[0].long()
        return (from_first + self._buckets).clamp(0, 2 * self._buckets - 1)

    def _relative_scores(
        self, query_heads: torch.Tensor, states: torch.Tensor, key: _Projection, table: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Computes DeBERTa's relative-position scores before scaling, (rows, heads, tokens) (He et al. 2021, arXiv
        2006.03654, eq. 4). The position queries are projected through the key weights as the content query is.
        """
        table = table[rows]
        total = 0
        if "c2p" in self._terms:
            keys = self._project_table("position_key", "key", table)
            total = torch.einsum("rhd,jhd->rhj", query_heads, keys)
        if "p2c" in self._terms:
            queries = self._project_table("position_query", "query", table)
            projected = _project_through_keys(queries, key, self._heads)
            total = total + torch.einsum("jhc,rjc->rhj", projected, states)
            if key[1] is not None:
                total = total + torch.einsum("jhd,hd->hj", queries, key[1].view(self._heads, -1))
        return total

    def _project_table(self, name: str, content: str, table: torch.Tensor) -> torch.Tensor:
        """Projects rows of the table with the position projection, or with the content projection if it is shared:
        (tokens, hidden) → (tokens, heads, head size).
        """
        projected = self._part(name if name in self._paths else content)(table)
        return projected.view(len(table), self._heads, -1)


_Projection = tuple[torch.Tensor, torch.Tensor | None]  # weight (size, hidden) and bias (size,)


def _project_heads(linear: _Projection, states: torch.Tensor, heads: int) -> torch.Tensor:
    """Applies a projection and splits the heads: (rows, hidden) → (rows, heads, head size)."""
    return nn.functional.linear(states, *linear).view(len(states), heads, -1)


def _project_through_keys(queries: torch.Tensor, key: _Projection, heads: int) -> torch.Tensor:
    """Multiplies queries by the key weights: (rows, heads, head size) → (rows, heads, hidden). Their product with a
    hidden state is the attention score, without a key.
    """
    return torch.einsum("rhd,hdc->rhc", queries, key[0].view(heads, -1, key[0].shape[1]))


def _attend(weights: torch.Tensor, states: torch.Tensor, value: _Projection, heads: int) -> torch.Tensor:
    """Computes the weighted sum of the tokens' values: (rows, heads, tokens) → (rows, size).

    The bias is multiplied by the sum of the weights, which is not 1 after dropout.
    """
    weight, bias = value
    context = torch.einsum("rhc,hdc->rhd", weights @ states, weight.view(heads, -1, weight.shape[1]))
    if bias is not None:
        context = context + weights.sum(dim=-1, keepdim=True) * bias.view(heads, -1)
    return context.flatten(1)


def _has(layer: nn.Module, path: str) -> bool:
    try:
        return attrgetter(path)(layer) is not None
    except AttributeError:
        return False


def _copy_at(layer: nn.Module, path: str) -> nn.Module | nn.Parameter:
    part = attrgetter(path)(layer)
    if isinstance(part, nn.Parameter):
        copied = nn.Parameter(part.detach().clone())
        parameters = [copied]
    else:
        copied = merged_module_copy(part)
        parameters = list(copied.parameters())
    for parameter in parameters:
        if not parameter.is_floating_point():
            raise UnsupportedModelError(
                f"{type(layer).__name__} has weights of type {parameter.dtype} at {path!r}: an exit trains a "
                "floating-point copy of the layer. Load the model without quantization."
            )
        parameter.requires_grad_()
    return copied


def _set_at(root: nn.Module, path: str, part: nn.Module | nn.Parameter) -> None:
    """Sets a submodule or parameter at a dotted path, creating empty modules for the parents."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    setattr(root, name, part)
