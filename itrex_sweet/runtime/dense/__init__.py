"""Per-exit subgraphs on padded rows, as torch modules that can be traced, fused and exported."""

from __future__ import annotations

from itrex_sweet.runtime.dense.subgraphs import DenseSubgraphs, build_subgraphs

__all__ = ["DenseSubgraphs", "build_subgraphs"]
