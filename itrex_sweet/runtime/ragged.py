"""Ragged batches: rows of different lengths packed without padding, and index arithmetic to select and merge them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from itrex_sweet.errors import InputError


class TokenBatch:
    """Token ids of several rows, concatenated. Not changed after it is created.

    Args:
        input_ids: (tokens,) int64.
        token_type_ids: (tokens,) int64; `None` if all are 0.
        position_ids: (tokens,) int64, from 0 at a row's first token; -1 for a padding token in families whose position
            ids skip padding tokens. `None` if those of every row are consecutive from 0.
        cu_seqlens: (rows + 1,) int64; row `r` holds tokens `cu_seqlens[r]` to `cu_seqlens[r + 1]`.
    """

    __slots__ = ("cu_seqlens", "given_positions", "given_types", "input_ids")

    def __init__(
        self,
        input_ids: np.ndarray,
        token_type_ids: np.ndarray | None,
        position_ids: np.ndarray | None,
        cu_seqlens: np.ndarray,
    ):
        self.input_ids = input_ids
        self.given_types = token_type_ids
        self.given_positions = position_ids
        self.cu_seqlens = cu_seqlens

    def __len__(self) -> int:
        return len(self.cu_seqlens) - 1

    @property
    def token_type_ids(self) -> np.ndarray:
        """Token types, (tokens,) int64."""
        return np.zeros_like(self.input_ids) if self.given_types is None else self.given_types

    @property
    def position_ids(self) -> np.ndarray:
        """Positions, (tokens,) int64."""
        return consecutive_positions(self.cu_seqlens) if self.given_positions is None else self.given_positions

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row, (rows,)."""
        return self.cu_seqlens[1:] - self.cu_seqlens[:-1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays by the names of the constructor's arguments."""
        return {name: getattr(self, name) for name in ("input_ids", "token_type_ids", "position_ids", "cu_seqlens")}

    def select(self, rows: np.ndarray) -> TokenBatch:
        """Returns the rows with these indices, in that order."""
        tokens, cu_seqlens = token_index(self.cu_seqlens, rows)
        types, positions = (
            None if given is None else given[tokens] for given in (self.given_types, self.given_positions)
        )
        return TokenBatch(self.input_ids[tokens], types, positions, cu_seqlens)

    def rows(self) -> list[np.ndarray]:
        """Returns the token ids of each row."""
        return np.split(self.input_ids, self.cu_seqlens[1:-1]) if len(self) else []

    @classmethod
    def concatenate(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Concatenates the rows of batches."""
        if len(batches) == 1:
            return batches[0]
        types = positions = None
        if any(batch.given_types is not None for batch in batches):
            types = np.concatenate([batch.token_type_ids for batch in batches])
        if any(batch.given_positions is not None for batch in batches):
            positions = np.concatenate([batch.position_ids for batch in batches])
        ids = np.concatenate([batch.input_ids for batch in batches])
        return cls(ids, types, positions, cumulative(np.concatenate([batch.lengths for batch in batches])))

    @classmethod
    def from_rows(
        cls,
        input_ids: Sequence[Sequence[int]],
        token_type_ids: Sequence[Sequence[int]] | None = None,
        padding_idx: int | None = None,
    ) -> TokenBatch:
        """Packs rows as a tokenizer returns them without padding.

        Args:
            input_ids: one sequence of ids per row.
            token_type_ids: the same shape; zeros if absent.
            padding_idx: id of tokens without a position (see `position_ids`).

        Raises:
            InputError: a row without tokens, rows of other lengths in `token_type_ids`, or values other than integers.
        """
        lengths = np.array([len(row) for row in input_ids], dtype=np.int64)
        _refuse_empty(lengths)
        ids = _flat("input_ids", input_ids)
        types = None if token_type_ids is None else _flat("token_type_ids", token_type_ids)
        cu_seqlens = cumulative(lengths)
        if token_type_ids is not None and [len(row) for row in token_type_ids] != lengths.tolist():
            raise InputError("token_type_ids and input_ids have rows of different lengths; they must be the same.")
        positions = None
        if padding_idx is not None and (ids == padding_idx).any():
            rows = np.split(ids, cu_seqlens[1:-1])
            positions = np.concatenate([_positions_without_padding(row, padding_idx) for row in rows])
        return cls(ids, types, positions, cu_seqlens)

    @classmethod
    def from_padded(
        cls,
        input_ids: np.ndarray,
        attention_mask: np.ndarray | None = None,
        token_type_ids: np.ndarray | None = None,
        padding_idx: int | None = None,
    ) -> TokenBatch:
        """Packs a batch that is padded on either side; masked tokens inside a row still advance the position.

        Args:
            input_ids: (rows, columns) integers.
            attention_mask: the same shape, 1 for tokens and 0 for padding; all ones if absent.
            token_type_ids: the same shape; zeros if absent.
            padding_idx: id of tokens without a position (see `position_ids`).

        Raises:
            InputError: different shapes, a row without tokens, ids or types that are not integers, or a mask with
                values other than 0 and 1.
        """
        ids = np.asarray(input_ids)
        if ids.ndim != 2:
            hint = "; one row is input_ids[None, :]" if ids.ndim == 1 else ""
            raise InputError(f"input_ids has shape {ids.shape}; (rows, columns) is needed{hint}.")
        for name, values in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if values is not None and np.shape(values) != ids.shape:
                raise InputError(f"{name} has shape {np.shape(values)}, input_ids {ids.shape}; they must be the same.")
        ids = integers("input_ids", ids)
        mask = np.ones(ids.shape, dtype=bool) if attention_mask is None else _mask(np.asarray(attention_mask))
        types = np.zeros_like(ids) if token_type_ids is None else integers("token_type_ids", np.asarray(token_type_ids))
        lengths = mask.sum(axis=1).astype(np.int64)
        _refuse_empty(lengths)
        if not len(ids):
            return cls.from_rows([])
        first = mask.argmax(axis=1)[:, None]
        if padding_idx is None:
            positions = np.arange(ids.shape[1], dtype=np.int64)[None, :] - first
        else:
            counted = np.stack([_positions_without_padding(row, padding_idx) for row in ids])
            before = np.take_along_axis(counted, first, axis=1).clip(min=0)
            positions = np.where(counted < 0, -1, counted - before)
        return cls(ids[mask], types[mask], positions[mask], cumulative(lengths))


def cumulative(lengths: np.ndarray) -> np.ndarray:
    """Returns the cumulative lengths from 0, (rows + 1,): the starts of packed rows and the end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def consecutive_positions(cu_seqlens: np.ndarray) -> np.ndarray:
    """Returns positions from 0 at the first token of each row, (tokens,) int64."""
    return np.arange(cu_seqlens[-1], dtype=np.int64) - np.repeat(cu_seqlens[:-1], np.diff(cu_seqlens))


def token_index(cu_seqlens: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the tokens of some rows in a packed batch, for compaction by one gather.

    Args:
        cu_seqlens: (rows + 1,) of the batch.
        rows: (selected rows,) indices.

    Returns:
        (tokens of the selected rows,) indices into the batch, and `cu_seqlens` of the selected rows.
    """
    lengths = cu_seqlens[rows + 1] - cu_seqlens[rows]
    kept = cumulative(lengths)
    return np.repeat(cu_seqlens[rows] - kept[:-1], lengths) + np.arange(kept[-1]), kept


def groups_of_equal_length(cu_seqlens: np.ndarray) -> list[np.ndarray]:
    """Groups rows of equal length, which can be computed as a dense block.

    Returns:
        token indices, one (rows of that length, length) int64 array per length.
    """
    lengths = np.diff(cu_seqlens)
    return [
        cu_seqlens[:-1][lengths == length][:, None] + np.arange(length, dtype=np.int64)[None, :]
        for length in np.unique(lengths)
    ]


def integers(name: str, values: np.ndarray) -> np.ndarray:
    """Copies integers to a contiguous int64 array in native byte order.

    Raises:
        InputError: floats, booleans or other types, or an integer beyond 64 bits.
    """
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise InputError(f"{name} holds {values.max()}, more than 64 bits with a sign.")
    if values.dtype.kind not in "iu":
        raise InputError(f"{name} holds {values.dtype}, and integers are needed.")
    return values.astype(np.int64, order="C")


def _mask(values: np.ndarray) -> np.ndarray:
    """Converts an attention mask of zeros and ones of any type to booleans."""
    if values.dtype.kind not in "biuf":
        raise InputError(f"attention_mask holds {values.dtype}; it is 1 where a token counts and 0 where not.")
    counts = values == 1
    other = values[~counts & (values != 0)]
    if other.size:
        # An additive mask (0 where a token counts, minus infinity where not) means the opposite.
        raise InputError(f"attention_mask holds {other[0]}; it is 1 where a token counts and 0 where not.")
    return counts


def _flat(name: str, rows: Sequence[Sequence[int]]) -> np.ndarray:
    if not len(rows):
        return np.zeros(0, np.int64)
    return integers(name, np.concatenate([np.asarray(row) for row in rows]))


def _positions_without_padding(ids: np.ndarray, padding_idx: int) -> np.ndarray:
    counted = ids != padding_idx
    return np.where(counted, np.cumsum(counted) - 1, -1)


def _refuse_empty(lengths: np.ndarray) -> None:
    empty = tuple(int(row) for row in np.flatnonzero(lengths == 0))
    if empty:
        raise InputError(f"rows {list(empty)} have no tokens (an attention mask of zeros, or an empty text).", empty)
