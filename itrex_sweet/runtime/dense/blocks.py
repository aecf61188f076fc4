"""Rows cut into padded blocks of few different shapes, for engines that compile once per shape.

Row counts are powers of two up to 32. Lengths are multiples of 4 up to 32 tokens, and above in four steps per
octave (40, 48, 56, 64, 80, …), so that products of the two, which are what fused layers see, coincide often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from itrex_sweet.runtime.ragged import TokenBatch

MOST_TOKENS = 4096  # of one block: beyond, a block no longer gains speed, and its states leave the cache
ROW_COUNTS = (32, 16, 8, 4, 2, 1)
CALL_COST = 32  # what one more block costs, in tokens: 23 with BERT-base, 50 with MiniLM, both in 8 bits


@dataclass(frozen=True)
class Cut:
    """One block to be: which rows it holds, and its shape.

    Args:
        rows: (rows held,) int64, indices of rows, at most `height`.
        height: rows of the block; those beyond the rows held are empty.
        width: tokens of its rows.
    """

    rows: np.ndarray
    height: int
    width: int


@dataclass(frozen=True)
class Block:
    """Rows of one shape.

    Args:
        states: (height, width, hidden), zeros in empty rows.
        mask: (height, width) bool, true where a token stands, and in the first column of empty rows.
        positions: (height, width) int64, 0 in the padding.
        lengths: (rows held,) int64, tokens of each row; the rows held are the first ones.
    """

    states: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    lengths: np.ndarray


@dataclass(frozen=True)
class BlockHidden:
    """Hidden states of several rows, each at a place in a block. Rows are dropped by forgetting their places.

    Args:
        blocks: shared, never written to.
        places: (rows, 2) int64: block and row in the block.
    """

    blocks: tuple[Block, ...]
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) tokens of each row."""
        return np.array([self.blocks[block].lengths[row] for block, row in self.places], dtype=np.int64)

    @property
    def rows_held(self) -> int:
        """Rows in the blocks, whether they have a place or not."""
        return sum(len(block.lengths) for block in self.blocks)

    def select(self, rows: np.ndarray) -> BlockHidden:
        places = self.places[rows]
        used, places[:, 0] = np.unique(places[:, 0], return_inverse=True)
        selected = BlockHidden(tuple(self.blocks[block] for block in used), places)
        # What few rows are left does not keep the states of many alive.
        return selected.compacted() if 2 * len(selected) < selected.rows_held else selected

    def with_states(self, states: Sequence[torch.Tensor]) -> BlockHidden:
        """The same rows further on, one tensor per block."""
        blocks = (
            Block(new, old.mask, old.positions, old.lengths) for new, old in zip(states, self.blocks, strict=True)
        )
        return BlockHidden(tuple(blocks), self.places)

    def compacted(self) -> BlockHidden:
        """The same rows in blocks that hold no others: itself where that is so already."""
        if len(self) == self.rows_held:
            return self
        cuts = cut(self.lengths)
        return BlockHidden(tuple(_gathered(self, one) for one in cuts), _places(cuts, len(self)))


def merged(parts: Sequence[BlockHidden]) -> BlockHidden:
    """The rows of all parts, in order, in as few blocks as is cheap."""
    if len(parts) == 1:
        return parts[0]
    first_block = np.cumsum([0, *(len(part.blocks) for part in parts[:-1])])
    places = [part.places + np.array([first, 0]) for part, first in zip(parts, first_block, strict=True)]
    together = BlockHidden(tuple(block for part in parts for block in part.blocks), np.concatenate(places))
    cuts = cut(together.lengths)
    if len(cuts) >= len(together.blocks):
        return together
    return BlockHidden(tuple(_gathered(together, one) for one in cuts), _places(cuts, len(together)))


def blocks_of(batch: TokenBatch) -> tuple[list[dict[str, torch.Tensor]], BlockHidden]:
    """Lays tokens out in blocks.

    Returns:
        input_ids and token_type_ids of each block, (height, width) int64 with zeros in the padding, and the blocks,
        still without states.
    """
    tokens, blocks = [], []
    cuts = cut(batch.lengths)
    for one in cuts:
        lengths = batch.lengths[one.rows]
        held = np.arange(one.width)[None, :] < lengths[:, None]
        index = (batch.cu_seqlens[one.rows][:, None] + np.arange(one.width)[None, :])[held]
        laid_out = np.zeros((3, one.height, one.width), dtype=np.int64)
        laid_out[:, : len(held)][:, held] = (
            batch.input_ids[index],
            batch.token_type_ids[index],
            batch.position_ids[index],
        )
        input_ids, token_type_ids, positions = torch.from_numpy(laid_out)
        tokens.append({"input_ids": input_ids, "token_type_ids": token_type_ids})
        blocks.append(Block(torch.empty(0), _mask(one, lengths), positions, lengths))
    return tokens, BlockHidden(tuple(blocks), _places(cuts, len(batch)))


def cut(lengths: np.ndarray) -> list[Cut]:
    """Cuts rows into blocks so that padded tokens plus the cost of calls are least.

    Rows of like length come together; each block takes the longest rows that are left.

    Args:
        lengths: (rows,) int64.
    """
    order = np.argsort(-lengths, kind="stable")
    widths = [rounded_length(int(length)) for length in lengths[order]]
    least: list[float] = [0.0] * (len(order) + 1)
    height_at = [0] * len(order)
    for start in reversed(range(len(order))):
        costs = {
            height: height * widths[start] + CALL_COST + least[min(start + height, len(order))]
            for height in ROW_COUNTS
            if height == 1 or height * widths[start] <= MOST_TOKENS
        }
        height_at[start] = min(costs, key=costs.get)
        least[start] = costs[height_at[start]]
    cuts, start = [], 0
    while start < len(order):
        height = height_at[start]
        cuts.append(Cut(order[start : start + height], height, widths[start]))
        start += height
    return cuts


def rounded_length(length: int) -> int:
    """The least length of the grid that is no shorter."""
    step = max(4, 2 ** ((length - 1).bit_length() - 3)) if length > 1 else 4
    return -(-length // step) * step


def token_counts(longest: int) -> set[int]:
    """Tokens that a block can have, padding included, if no row is longer than `longest`."""
    widths = {rounded_length(length) for length in range(1, longest + 1)}
    return {height * width for height in ROW_COUNTS for width in widths if height == 1 or height * width <= MOST_TOKENS}


def _places(cuts: Sequence[Cut], rows: int) -> np.ndarray:
    places = np.empty((rows, 2), dtype=np.int64)
    for block, one in enumerate(cuts):
        places[one.rows, 0], places[one.rows, 1] = block, np.arange(len(one.rows))
    return places


def _mask(one: Cut, lengths: np.ndarray) -> torch.Tensor:
    tokens = np.ones(one.height, dtype=np.int64)
    tokens[: len(lengths)] = lengths
    return torch.from_numpy(np.arange(one.width)[None, :] < tokens[:, None])


def _gathered(hidden: BlockHidden, one: Cut) -> Block:
    """Copies rows out of their blocks into one."""
    places, lengths = hidden.places[one.rows], hidden.lengths[one.rows]
    like = hidden.blocks[0]
    states = like.states.new_zeros(one.height, one.width, like.states.shape[2])
    positions = like.positions.new_zeros(one.height, one.width)
    for block in np.unique(places[:, 0]):
        source, to = hidden.blocks[block], np.flatnonzero(places[:, 0] == block)
        width = min(one.width, source.states.shape[1])
        rows = torch.from_numpy(places[to, 1])
        states[torch.from_numpy(to), :width] = source.states[rows, :width]
        positions[torch.from_numpy(to), :width] = source.positions[rows, :width]
    return Block(states, _mask(one, lengths), positions, lengths)
