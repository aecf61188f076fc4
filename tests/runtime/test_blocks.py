"""Tests of padded blocks: each row is in one block, shapes are few, and selecting and regrouping keep the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.runtime.dense.blocks import (
    CALL_COST,
    MAX_BLOCK_TOKENS,
    ROW_COUNTS,
    BlockHidden,
    merge_blocks,
    pad_to_blocks,
    padded_length,
    plan_blocks,
    possible_token_counts,
)
from itrex_sweet.runtime.ragged import TokenBatch

lengths_strategy = st.lists(st.integers(1, 512), max_size=70).map(lambda lengths: np.array(lengths, dtype=np.int64))
rows_strategy = st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=20), min_size=1, max_size=12)


def with_ids_as_states(rows: list[list[int]]) -> BlockHidden:
    """Returns blocks whose hidden states are the token ids, so that rows can be identified."""
    tokens, hidden = pad_to_blocks(TokenBatch.from_rows(rows))
    return hidden.with_states([ids["input_ids"][:, :, None].float() for ids in tokens])


def rows_of(hidden: BlockHidden) -> list[list[int]]:
    """Returns the token ids of the rows, read through mask and row indices."""
    rows = []
    for block, row in hidden.locations:
        held = hidden.blocks[block]
        rows.append(held.states[row, held.mask[row], 0].int().tolist())
    return rows


@given(lengths_strategy)
def test_every_row_is_in_one_block(lengths):
    shapes = plan_blocks(lengths)
    assert sorted(row for shape in shapes for row in shape.rows) == list(range(len(lengths)))
    for shape in shapes:
        assert 0 < len(shape.rows) <= shape.height and shape.height in ROW_COUNTS
        assert lengths[shape.rows].max() <= shape.width
        assert shape.height == 1 or shape.height * shape.width <= MAX_BLOCK_TOKENS
        assert shape.height * shape.width in possible_token_counts(512)


@given(lengths_strategy)
def test_plan_costs_at_most_single_rows_or_one_length(lengths):
    def cost(shapes):
        return sum(height * width + CALL_COST for height, width in shapes)

    chosen = cost((shape.height, shape.width) for shape in plan_blocks(lengths))
    assert chosen <= cost((1, padded_length(int(length))) for length in lengths)
    for start in range(0, len(lengths), 8):
        group = lengths[start : start + 8]
        assert cost((shape.height, shape.width) for shape in plan_blocks(group)) <= cost(
            [(8, padded_length(int(group.max())))]
        )


def test_rounded_lengths():
    lengths = np.arange(1, 513)
    rounded = np.array([padded_length(int(length)) for length in lengths])
    assert (rounded >= lengths).all()
    assert len(set(rounded)) == 24
    assert ((rounded - lengths) / np.maximum(lengths, 16) <= 0.25).all()
    assert len(possible_token_counts(512)) < 40


@given(rows_strategy)
def test_tokens_positions_and_mask(rows):
    batch = TokenBatch.from_rows(rows, [[token % 2 for token in row] for row in rows], padding_idx=1)
    tokens, hidden = pad_to_blocks(batch)
    assert rows_of(with_ids_as_states(rows)) == rows
    for ids, block in zip(tokens, hidden.blocks, strict=True):
        assert block.mask[:, 0].all()  # no row of padding alone: its softmax would have nothing to weigh
        held = block.mask.clone()
        held[len(block.lengths) :] = False
        assert torch.equal(ids["token_type_ids"][held], ids["input_ids"][held] % 2)
        assert (ids["input_ids"][~held] == 0).all() and (block.positions[~held] == 0).all()
    for row, (block, at) in enumerate(hidden.locations):
        start, stop = batch.cu_seqlens[row : row + 2]
        assert hidden.blocks[block].positions[at, : stop - start].tolist() == batch.position_ids[start:stop].tolist()


@given(rows_strategy, st.data())
def test_selecting_and_regrouping_keep_rows(rows, data):
    hidden = with_ids_as_states(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    selected = hidden.select(np.array(chosen, dtype=np.int64))
    assert rows_of(selected) == rows_of(selected.compacted()) == [rows[row] for row in chosen]
    both = merge_blocks([selected, hidden, selected])
    assert rows_of(both) == rows_of(both.compacted()) == [*rows_of(selected), *rows, *rows_of(selected)]
    assert rows_of(hidden) == rows
    assert both.lengths.tolist() == [len(row) for row in rows_of(both)]


def test_remaining_rows_are_regrouped():
    parts = [with_ids_as_states([[7] * 9] * 32).select(np.arange(8)) for _ in range(4)]
    (block,) = merge_blocks(parts).blocks
    assert block.states.shape[:2] == (32, 12)


def test_complete_blocks_are_not_copied():
    hidden = with_ids_as_states([[5] * 9] * 4)
    assert hidden.compacted() is hidden
    assert hidden.select(np.array([3, 1, 0, 2])).blocks[0] is hidden.blocks[0]


def test_few_remaining_rows_release_their_block():
    survivor = with_ids_as_states([[5] * 9] * 32).select(np.array([4]))
    assert survivor.blocks[0].states.shape[0] == 1


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_batch_and_single_token(rows):
    hidden = with_ids_as_states([[3]] * rows)
    assert len(hidden) == rows == len(hidden.blocks)
    assert len(merge_blocks([hidden, hidden]).compacted()) == 2 * rows
    assert len(hidden.select(np.zeros(0, np.int64))) == 0
