"""DeBERTa's relative-position terms of the attention scores (He et al. 2021, arXiv 2006.03654, equation 4)."""

from __future__ import annotations

import torch

from itrex_sweet.runtime.encoder import Layer, RelativeTerms


def scores(terms: RelativeTerms, buckets: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Content→position and position→content terms for every pair of tokens, before scaling.

    Args:
        buckets: (rows, length, length) int64, table row for query position minus key position.
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
        # Term (i, j) is the key at j times the position query of i - j, so the lookup runs over the keys.
        by_key = torch.matmul(key, terms.query.transpose(1, 2)).gather(-1, index.transpose(-1, -2))
        total += by_key.transpose(-1, -2)
    return total


def first_token_scores(layer: Layer, buckets: torch.Tensor, query: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The same terms for the first token's query alone, the keys never formed.

    The position query of a bucket moves through the key weights as the content query does. The key bias no longer
    cancels: it meets a different position query at each token.

    Args:
        buckets: (rows, length) int64, table row for the first position minus each token's.
        query: (rows, heads, head size).
        states: (rows, length, hidden), entering the layer.

    Returns:
        (rows, heads, length).
    """
    terms, (rows, heads, _) = layer.relative, query.shape
    index = buckets[:, None].expand(-1, heads, -1)
    total = torch.zeros(index.shape, dtype=query.dtype)
    if terms.key is not None:
        total += torch.einsum("rhd,htd->rht", query, terms.key).gather(-1, index)
    if terms.query is not None:
        key = layer.key.weight.view(heads, -1, layer.key.weight.shape[1])
        used, place = buckets.unique(return_inverse=True)
        position_query = terms.query[:, used]
        reached = torch.einsum("htd,hdc->thc", position_query, key)
        for row in range(rows):
            total[row] += torch.einsum("jhc,jc->hj", reached[place[row]], states[row])
        if layer.key.bias is not None:
            bias = torch.einsum("htd,hd->ht", position_query, layer.key.bias.view(heads, -1))
            total += bias[:, place].transpose(0, 1)
    return total
