"""Padded blocks of few different shapes, for engines that compile once per shape.

Numbers of rows are powers of two up to 32. Lengths are multiples of 4 up to 32 tokens, then four steps per octave (40,
48, 56, 64, 80, …). Fused layers see only the product of both, and many of these products coincide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itrex_sweet.runtime.ragged import TokenBatch

MAX_BLOCK_TOKENS = 4096  # larger blocks are not faster, and their states exceed the cache
ROW_COUNTS = (32, 16, 8, 4, 2, 1)
CALL_COST = 32  # overhead per block in tokens, measured: 23 with BERT-base, 50 with MiniLM, both INT8


@dataclass(frozen=True)
class BlockShape:
    """The rows and the shape of a block.

    Args:
        rows: (rows,) int64, indices of rows, at most `height`.
        height: number of rows of the block; the others are padding.
        width: length of the rows.
    """

    rows: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Block:
    """Padded rows.

    Args:
        states: (height, width, hidden), zeros in padding rows.
        mask: (height, width) bool attention mask: true for tokens, and for the first column of padding rows.
        positions: (height, width) int64, 0 for padding.
        lengths: (rows,) int64, number of tokens of each row; padding rows follow.
    """

    states: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    lengths: np.ndarray


@dataclass(frozen=True)
class BlockHidden:
    """Hidden states of rows in padded blocks. Dropping rows changes `locations` only.

    Args:
        blocks: shared and immutable.
        locations: (rows, 2) int64: block, and row in the block.
    """

    blocks: tuple[Block, ...]
    locations: np.ndarray

    def __len__(self) -> int:
        return len(self.locations)

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row: (rows,)."""
        return np.array([self.blocks[block].lengths[row] for block, row in self.locations], dtype=np.int64)

    @property
    def stored_rows(self) -> int:
        """Number of rows in the blocks, including dropped ones."""
        return sum(len(block.lengths) for block in self.blocks)

    def select(self, rows: np.ndarray) -> BlockHidden:
        locations = self.locations[rows]
        used, locations[:, 0] = np.unique(locations[:, 0], return_inverse=True)
        selected = BlockHidden(tuple(self.blocks[block] for block in used), locations)
        # Frees the states of dropped rows once they are the majority.
        return selected.compacted() if 2 * len(selected) < selected.stored_rows else selected

    def with_states(self, states: Sequence[torch.Tensor]) -> BlockHidden:
        """Returns the same rows with other states, one tensor per block."""
        blocks = (
            Block(new, old.mask, old.positions, old.lengths) for new, old in zip(states, self.blocks, strict=True)
        )
        return BlockHidden(tuple(blocks), self.locations)

    def compacted(self) -> BlockHidden:
        """Returns the same rows in blocks without dropped rows."""
        if len(self) == self.stored_rows:
            return self
        shapes = plan_blocks(self.lengths)
        return BlockHidden(tuple(_gather(self, shape) for shape in shapes), _locations(shapes, len(self)))


def merge_blocks(parts: Sequence[BlockHidden]) -> BlockHidden:
    """Concatenates the rows of all parts; copies them to new blocks if that makes fewer."""
    if len(parts) == 1:
        return parts[0]
    first_block = np.cumsum([0, *(len(part.blocks) for part in parts[:-1])])
    locations = [part.locations + np.array([first, 0]) for part, first in zip(parts, first_block, strict=True)]
    combined = BlockHidden(tuple(block for part in parts for block in part.blocks), np.concatenate(locations))
    shapes = plan_blocks(combined.lengths)
    if len(shapes) >= len(combined.blocks):
        return combined
    return BlockHidden(tuple(_gather(combined, shape) for shape in shapes), _locations(shapes, len(combined)))


def pad_to_blocks(batch: TokenBatch) -> tuple[list[dict[str, torch.Tensor]], BlockHidden]:
    """Pads the rows of a batch to blocks.

    Returns:
        input_ids and token_type_ids of each block, (height, width) int64, zero-padded; and the blocks without states.
    """
    tokens, blocks = [], []
    shapes = plan_blocks(batch.lengths)
    for shape in shapes:
        lengths = batch.lengths[shape.rows]
        is_token = np.arange(shape.width)[None, :] < lengths[:, None]
        index = (batch.cu_seqlens[shape.rows][:, None] + np.arange(shape.width)[None, :])[is_token]
        padded = np.zeros((3, shape.height, shape.width), dtype=np.int64)
        padded[:, : len(is_token)][:, is_token] = (
            batch.input_ids[index],
            batch.token_type_ids[index],
            batch.position_ids[index],
        )
        input_ids, token_type_ids, positions = torch.from_numpy(padded)
        tokens.append({"input_ids": input_ids, "token_type_ids": token_type_ids})
        blocks.append(Block(torch.empty(0), _mask(shape, lengths), positions, lengths))
    return tokens, BlockHidden(tuple(blocks), _locations(shapes, len(batch)))


def plan_blocks(lengths: np.ndarray) -> list[BlockShape]:
    """Plans blocks with minimum cost: the number of tokens including padding, plus `CALL_COST` per block.

    Rows are sorted by length, longest first, and divided into consecutive blocks by dynamic programming.

    Args:
        lengths: (rows,) int64.
    """
    order = np.argsort(-lengths, kind="stable")
    widths = [padded_length(int(length)) for length in lengths[order]]
    min_cost: list[float] = [0.0] * (len(order) + 1)
    height_at = [0] * len(order)
    for start in reversed(range(len(order))):
        costs = {
            height: height * widths[start] + CALL_COST + min_cost[min(start + height, len(order))]
            for height in ROW_COUNTS
            if height == 1 or height * widths[start] <= MAX_BLOCK_TOKENS
        }
        height_at[start] = min(costs, key=costs.get)
        min_cost[start] = costs[height_at[start]]
    shapes, start = [], 0
    while start < len(order):
        height = height_at[start]
        shapes.append(BlockShape(order[start : start + height], height, widths[start]))
        start += height
    return shapes


def padded_length(length: int) -> int:
    """Returns the smallest length of the grid that is not shorter."""
    step = max(4, 2 ** ((length - 1).bit_length() - 3)) if length > 1 else 4
    return -(-length // step) * step


def possible_token_counts(max_length: int) -> set[int]:
    """Returns the possible numbers of tokens of a block, padding included, for rows of at most `max_length` tokens."""
    widths = {padded_length(length) for length in range(1, max_length + 1)}
    counts = {(height, height * width) for height in ROW_COUNTS for width in widths}
    return {count for height, count in counts if height == 1 or count <= MAX_BLOCK_TOKENS}


def _locations(shapes: Sequence[BlockShape], rows: int) -> np.ndarray:
    locations = np.empty((rows, 2), dtype=np.int64)
    for block, shape in enumerate(shapes):
        locations[shape.rows, 0], locations[shape.rows, 1] = block, np.arange(len(shape.rows))
    return locations


def _mask(shape: BlockShape, lengths: np.ndarray) -> torch.Tensor:
    tokens = np.ones(shape.height, dtype=np.int64)
    tokens[: len(lengths)] = lengths
    return torch.from_numpy(np.arange(shape.width)[None, :] < tokens[:, None])


def _gather(hidden: BlockHidden, shape: BlockShape) -> Block:
    """Copies rows from their blocks to one block."""
    locations, lengths = hidden.locations[shape.rows], hidden.lengths[shape.rows]
    like = hidden.blocks[0]
    states = like.states.new_zeros(shape.height, shape.width, like.states.shape[2])
    positions = like.positions.new_zeros(shape.height, shape.width)
    for block in np.unique(locations[:, 0]):
        source, to = hidden.blocks[block], np.flatnonzero(locations[:, 0] == block)
        width = min(shape.width, source.states.shape[1])
        rows = torch.from_numpy(locations[to, 1])
        states[torch.from_numpy(to), :width] = source.states[rows, :width]
        positions[torch.from_numpy(to), :width] = source.positions[rows, :width]
    return Block(states, _mask(shape, lengths), positions, lengths)
