"""Relative-position terms of DeBERTa's attention scores (He et al. 2021, arXiv 2006.03654, equation 4)."""

from __future__ import annotations

import torch

from itrex_sweet.runtime.encoder import Layer, RelativeTerms


def relative_scores(
    terms: RelativeTerms, buckets: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor:
    """Computes content-to-position and position-to-content scores of every pair of tokens, before scaling.

    Args:
        buckets: (rows, length, length) int64, bucket of query position minus key position.
        query: (rows, heads, length, head size).
        key: the same shape.

    Returns:
        (rows, heads, length, length).
    """
    heads = query.shape[1]
    index = buckets[:, None].expand(-1, heads, -1, -1)
    total = torch.zeros(index.shape, dtype=query.dtype)
    if terms.key is not None:
        total += torch.matmul(query, terms.key.transpose(1, 2)).gather(-1, index)
    if terms.query is not None:
        # Term (i, j) is the dot product of key j and the position query of i - j, so the gather runs over the keys.
        position_to_content = torch.matmul(key, terms.query.transpose(1, 2)).gather(-1, index.transpose(-1, -2))
        total += position_to_content.transpose(-1, -2)
    return total


def first_token_relative_scores(
    layer: Layer, buckets: torch.Tensor, query: torch.Tensor, states: torch.Tensor
) -> torch.Tensor:
    """Computes the same scores for the first token's query only, without computing keys.

    The position queries are projected through the key weights like the content query. The key bias does not cancel in
    the softmax here, since it is multiplied by a different position query for each token.

    Args:
        buckets: (rows, length) int64, bucket of the first position minus each token's position.
        query: (rows, heads, head size).
        states: (rows, length, hidden), input of the layer.

    Returns:
        (rows, heads, length).
    """
    terms, (rows, heads, _) = layer.relative, query.shape
    index = buckets[:, None].expand(-1, heads, -1)
    total = torch.zeros(index.shape, dtype=query.dtype)
    if terms.key is not None:
        total += torch.einsum("rhd,htd->rht", query, terms.key).gather(-1, index)
    if terms.query is not None:
        key_weight = layer.key.weight.view(heads, -1, layer.key.weight.shape[1])
        used, bucket_index = buckets.unique(return_inverse=True)
        position_query = terms.query[:, used]
        projected_query = torch.einsum("htd,hdc->thc", position_query, key_weight)
        for row in range(rows):
            total[row] += torch.einsum("jhc,jc->hj", projected_query[bucket_index[row]], states[row])
        if layer.key.bias is not None:
            bias = torch.einsum("htd,hd->ht", position_query, layer.key.bias.view(heads, -1))
            total += bias[:, bucket_index].transpose(0, 1)
    return total
