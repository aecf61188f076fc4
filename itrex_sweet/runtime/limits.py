"""Checks rows against the limits of a model, token ids, token types and length, the same for all backends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.ragged import TokenBatch


@dataclass(frozen=True)
class Fault:
    """Rows of a batch that are wrong for the same reason.

    Args:
        rows: indices in the batch.
        reasons: message for each row.
        message: message for all of them.
    """

    rows: tuple[int, ...]
    reasons: tuple[str, ...]
    message: str


def faults(batch: TokenBatch, backend: Backend) -> Iterator[Fault]:
    """Yields rows with token ids or types outside the embedding tables, and rows that are too long."""
    rule = f"ids go from 0 to {backend.vocabulary - 1}. Is the tokenizer this model's own?"
    yield from _outside("token id", batch.input_ids, backend.vocabulary, rule, batch)
    types = backend.token_types
    rule = "types are not negative." if types is None else f"types go from 0 to {types - 1}."
    if batch.given_types is not None:
        yield from _outside("token type", batch.given_types, types, rule, batch)
    if (limit := backend.max_tokens) is not None:
        yield from _too_long(batch, limit)


def reasons(batch: TokenBatch, backend: Backend) -> dict[int, str]:
    """Returns the index of each row that the model cannot compute, and the reason."""
    found: dict[int, str] = {}
    for fault in faults(batch, backend):
        for row, reason in zip(fault.rows, fault.reasons, strict=True):
            found.setdefault(row, reason)
    return found


def _outside(what: str, values: np.ndarray, count: int | None, rule: str, batch: TokenBatch) -> Iterator[Fault]:
    bad = values < 0
    if count is not None:
        bad |= values >= count
    if not bad.any():
        return
    tokens = np.flatnonzero(bad)
    rows, first = np.unique(np.searchsorted(batch.cu_seqlens, tokens, side="right") - 1, return_index=True)
    found = values[tokens[first]].tolist()
    yield Fault(
        tuple(rows.tolist()),
        tuple(f"{what} {value}: {rule}" for value in found),
        f"{what} {found[0]} in rows {rows.tolist()}: {rule}",
    )


def _too_long(batch: TokenBatch, limit: int) -> Iterator[Fault]:
    lengths = batch.lengths
    if (long := np.flatnonzero(lengths > limit)).size:
        yield Fault(
            tuple(long.tolist()),
            tuple(f"{length} tokens, and the limit is {limit}" for length in lengths[long].tolist()),
            f"rows {long.tolist()} have up to {lengths.max()} tokens; the model takes {limit}. "
            "Tokenize with truncation=True.",
        )
    if batch.given_positions is None and not long.size:
        return
    positions = batch.position_ids
    # A mask with holes lets few tokens reach far.
    beyond = np.flatnonzero(positions >= limit)
    if beyond.size:
        rows, first = np.unique(np.searchsorted(batch.cu_seqlens, beyond, side="right") - 1, return_index=True)
        found = positions[beyond[first]].tolist()
        yield Fault(
            tuple(rows.tolist()),
            tuple(f"position {position}, and the model has {limit} positions" for position in found),
            f"rows {rows.tolist()} have a token at position {found[0]} behind masked ones; the model has {limit} "
            "positions, from 0.",
        )
