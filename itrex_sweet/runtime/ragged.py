"""Rows of different lengths packed without padding, and the index arithmetic to drop and regroup them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from itrex_sweet.errors import InputError


@dataclass(frozen=True)
class TokenBatch:
    """Token ids of several rows, end to end.

    Args:
        input_ids: (tokens,) int64.
        token_type_ids: (tokens,) int64.
        position_ids: (tokens,) int64, from 0 at a row's first token. -1 marks a token that a family which counts
            positions over non-padding tokens does not count.
        cu_seqlens: (rows + 1,) int64; row `r` holds tokens `cu_seqlens[r]` to `cu_seqlens[r + 1]`.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    position_ids: np.ndarray
    cu_seqlens: np.ndarray

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) tokens of each row."""
        return np.diff(self.cu_seqlens)

    def select(self, rows: np.ndarray) -> TokenBatch:
        """The rows named, in that order."""
        tokens, cu_seqlens = token_index(self.cu_seqlens, rows)
        return TokenBatch(self.input_ids[tokens], self.token_type_ids[tokens], self.position_ids[tokens], cu_seqlens)

    def rows(self) -> list[np.ndarray]:
        """Token ids of each row."""
        return np.split(self.input_ids, self.cu_seqlens[1:-1]) if len(self) else []

    @classmethod
    def concatenate(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """The rows of all batches, in order."""
        return cls(
            np.concatenate([batch.input_ids for batch in batches]),
            np.concatenate([batch.token_type_ids for batch in batches]),
            np.concatenate([batch.position_ids for batch in batches]),
            cumulative(np.concatenate([batch.lengths for batch in batches])),
        )

    @classmethod
    def from_rows(
        cls,
        input_ids: Sequence[Sequence[int]],
        token_type_ids: Sequence[Sequence[int]] | None = None,
        uncounted_token: int | None = None,
    ) -> TokenBatch:
        """Packs rows given one by one, as a tokenizer returns them without padding.

        Args:
            input_ids: one sequence of ids per row.
            token_type_ids: the same shape; zeros if absent.
            uncounted_token: id that does not advance the position (see `position_ids`).

        Raises:
            InputError: a row without tokens.
        """
        lengths = np.array([len(row) for row in input_ids], dtype=np.int64)
        _refuse_empty(lengths)
        ids = _flat(input_ids)
        types = np.zeros_like(ids) if token_type_ids is None else _flat(token_type_ids)
        cu_seqlens = cumulative(lengths)
        positions = np.arange(len(ids), dtype=np.int64) - np.repeat(cu_seqlens[:-1], lengths)
        if uncounted_token is not None and (ids == uncounted_token).any():
            rows = np.split(ids, cu_seqlens[1:-1])
            positions = np.concatenate([_counted_positions(row, uncounted_token) for row in rows])
        return cls(ids, types, positions, cu_seqlens)

    @classmethod
    def from_padded(
        cls,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        token_type_ids: np.ndarray | None = None,
        uncounted_token: int | None = None,
    ) -> TokenBatch:
        """Packs a padded batch, padded on either side; a masked column inside a row keeps its position.

        Args:
            input_ids: (rows, columns) integers.
            attention_mask: the same shape, non-zero where a token counts; all do if absent.
            token_type_ids: the same shape; zeros if absent.
            uncounted_token: id that does not advance the position (see `position_ids`).

        Raises:
            InputError: shapes that differ, or a row without tokens.
        """
        ids = np.asarray(input_ids, dtype=np.int64)
        if ids.ndim != 2:
            raise InputError(f"input_ids has shape {ids.shape}; (rows, columns) is needed.")
        mask = np.ones(ids.shape, dtype=bool) if attention_mask is None else np.asarray(attention_mask) != 0
        types = np.zeros_like(ids) if token_type_ids is None else np.asarray(token_type_ids, dtype=np.int64)
        for name, array in (("attention_mask", mask), ("token_type_ids", types)):
            if array.shape != ids.shape:
                raise InputError(f"{name} has shape {array.shape}, input_ids {ids.shape}; they must be the same.")
        lengths = mask.sum(axis=1).astype(np.int64)
        _refuse_empty(lengths)
        if not len(ids):
            return cls.from_rows([])
        first = mask.argmax(axis=1)[:, None]
        if uncounted_token is None:
            positions = np.arange(ids.shape[1], dtype=np.int64)[None, :] - first
        else:
            counted = np.stack([_counted_positions(row, uncounted_token) for row in ids])
            before = np.take_along_axis(counted, first, axis=1).clip(min=0)
            positions = np.where(counted < 0, -1, counted - before)
        return cls(ids[mask], types[mask], positions[mask], cumulative(lengths))


def cumulative(lengths: np.ndarray) -> np.ndarray:
    """(rows + 1,) starts and end of rows of these lengths, packed."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def token_index(cu_seqlens: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens of some rows lie in a packed batch: compaction is one gather by this index.

    Args:
        cu_seqlens: (rows of the batch + 1,) of the batch.
        rows: (rows kept,) indices, in the order wanted.

    Returns:
        (tokens kept,) indices into the batch, and the `cu_seqlens` of what is kept.
    """
    lengths = cu_seqlens[rows + 1] - cu_seqlens[rows]
    kept = cumulative(lengths)
    return np.repeat(cu_seqlens[rows] - kept[:-1], lengths) + np.arange(kept[-1]), kept


def groups_of_equal_length(cu_seqlens: np.ndarray) -> list[np.ndarray]:
    """Token indices of the rows, grouped so that rows of one length can be computed as a dense block.

    Returns:
        one (rows of that length, length) int64 array per length.
    """
    lengths = np.diff(cu_seqlens)
    return [
        cu_seqlens[:-1][lengths == length][:, None] + np.arange(length, dtype=np.int64)[None, :]
        for length in np.unique(lengths)
    ]


def _flat(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if len(rows) else np.zeros(0, np.int64)


def _counted_positions(ids: np.ndarray, uncounted_token: int) -> np.ndarray:
    counted = ids != uncounted_token
    return np.where(counted, np.cumsum(counted) - 1, -1)


def _refuse_empty(lengths: np.ndarray) -> None:
    empty = tuple(int(row) for row in np.flatnonzero(lengths == 0))
    if empty:
        raise InputError(f"rows {list(empty)} have no tokens (an attention mask of zeros, or an empty text).", empty)
