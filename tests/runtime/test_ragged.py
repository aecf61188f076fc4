"""Tests of packing, selecting and concatenating rows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from itrex_sweet.errors import InputError
from itrex_sweet.runtime.ragged import TokenBatch, groups_of_equal_length, token_index

rows_of_ids = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=9), max_size=8)


def unpacked(batch: TokenBatch) -> list[list[int]]:
    return [batch.input_ids[start:stop].tolist() for start, stop in pairwise(batch.cu_seqlens)]


@given(rows_of_ids, st.booleans(), st.integers(0, 3))
def test_padding_is_removed(rows, left, spare):
    width = max((len(row) for row in rows), default=0) + spare
    ids, mask = np.zeros((len(rows), width), int), np.zeros((len(rows), width), int)
    for place, row in enumerate(rows):
        columns = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, columns], mask[place, columns] = row, 1
    batch, expected = TokenBatch.from_padded(ids, mask), TokenBatch.from_rows(rows)
    assert unpacked(batch) == rows
    np.testing.assert_array_equal(batch.position_ids, expected.position_ids)
    np.testing.assert_array_equal(batch.cu_seqlens, expected.cu_seqlens)


@given(rows_of_ids.filter(bool), st.data())
def test_select_keeps_the_requested_order(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    batch = TokenBatch.from_rows(rows).select(np.array(chosen, dtype=np.int64))
    assert unpacked(batch) == [rows[place] for place in chosen]


@given(rows_of_ids)
def test_groups_by_length(rows):
    batch = TokenBatch.from_rows(rows)
    groups = groups_of_equal_length(batch.cu_seqlens)
    assert sorted(token for group in groups for token in group.flatten().tolist()) == list(range(len(batch.input_ids)))
    assert len({group.shape[1] for group in groups}) == len(groups)


@given(st.lists(rows_of_ids, min_size=1, max_size=4))
def test_concatenation_keeps_the_order(parts):
    joined = TokenBatch.concatenate([TokenBatch.from_rows(rows) for rows in parts])
    assert unpacked(joined) == [row for rows in parts for row in rows]


def test_masked_column_keeps_its_position():
    batch = TokenBatch.from_padded(np.array([[7, 8, 9, 4]]), np.array([[1, 0, 1, 1]]))
    assert batch.input_ids.tolist() == [7, 9, 4]
    assert batch.position_ids.tolist() == [0, 2, 3]


def test_positions_with_padding_idx():
    padded = TokenBatch.from_padded(np.array([[1, 5, 6, 1, 7]]), np.array([[0, 1, 1, 1, 1]]), padding_idx=1)
    packed = TokenBatch.from_rows([[5, 6, 1, 7]], padding_idx=1)
    assert padded.position_ids.tolist() == packed.position_ids.tolist() == [0, 1, -1, 2]


def test_positions_start_at_the_first_attended_token():
    """Also if the masked tokens before it are not padding tokens."""
    ids, mask = np.array([[8, 9, 5, 6]]), np.array([[0, 0, 1, 1]])
    assert TokenBatch.from_padded(ids, mask, padding_idx=1).position_ids.tolist() == [0, 1]
    assert TokenBatch.from_padded(ids, mask).position_ids.tolist() == [0, 1]


def test_rows_without_tokens():
    with pytest.raises(InputError, match=r"rows \[1\] have no tokens") as caught:
        TokenBatch.from_padded(np.array([[3, 4], [0, 0]]), np.array([[1, 1], [0, 0]]))
    assert caught.value.rows == (1,)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(input_ids=np.array([1, 2, 3])), "input_ids has shape"),
        (dict(input_ids=np.ones((2, 3)), attention_mask=np.ones((2, 4))), "attention_mask has shape"),
        (dict(input_ids=np.ones((2, 3)), token_type_ids=np.ones((3, 3))), "token_type_ids has shape"),
    ],
)
def test_invalid_shapes(arguments, words):
    with pytest.raises(InputError, match=words):
        TokenBatch.from_padded(**arguments)


def test_empty_batch():
    batch = TokenBatch.from_rows([])
    assert len(batch) == 0 and len(batch.select(np.zeros(0, np.int64))) == 0
    assert token_index(batch.cu_seqlens, np.zeros(0, np.int64))[1].tolist() == [0]
