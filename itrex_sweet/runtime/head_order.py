"""Orders of the outputs of query, key and value projections, which are grouped by attention head."""

from __future__ import annotations

import dataclasses

import numpy as np

from itrex_sweet.runtime.encoder import AnyLinear, QuantizedLinear


def with_outputs(linear: AnyLinear, order: np.ndarray) -> AnyLinear:
    """Returns the linear layer that has these outputs of another one, in this order; an output may repeat."""
    names = ("weight", "bias", *(("weight_scale",) if isinstance(linear, QuantizedLinear) else ()))
    parts = {name: getattr(linear, name) for name in names}
    return dataclasses.replace(linear, **{name: part[order] for name, part in parts.items() if part is not None})


def halves_of_neighbors(heads: int, head_size: int) -> np.ndarray:
    """Returns the order in which the elements `2 i` and `2 i + 1` of a head become `i` and `i + head size / 2`.

    It turns queries and keys whose neighboring elements are rotated into those that `Rotary` rotates; their products
    stay the same.
    """
    of_head = np.arange(head_size).reshape(-1, 2).T.ravel()
    return (np.arange(heads)[:, None] * head_size + of_head).ravel()


def repeated_heads(heads: int, times: int, head_size: int) -> np.ndarray:
    """Returns the order in which each head of keys or values stands once for every query head that reads it."""
    of_query = np.repeat(np.arange(heads), times)
    return (of_query[:, None] * head_size + np.arange(head_size)).ravel()
