"""Rows in padded, dense form: the per-exit subgraphs as torch modules that can be traced, fused and exported."""

from __future__ import annotations

from itrex_sweet.runtime.dense.subgraphs import DenseExits, dense_exits

__all__ = ["DenseExits", "dense_exits"]
