"""Counts of a scheduler, for metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Snapshot:
    """Counts of a scheduler at one moment.

    Args:
        rows_waiting, tokens_waiting: by the exit that rows wait for; rows that wait for the first are not embedded.
        rows_answered: by the exit that answered, since the start.
        unanswered: rows without an answer, also those being computed.
        rejected: requests refused with `Overloaded`.
        expired: requests failed with `DeadlineExceeded`.
        cancelled: requests that were cancelled.
        degraded: rows answered under a policy that load had lowered.
        quality: of the policy that a request of one row would get now, 1 unless load lowers it.
    """

    rows_waiting: tuple[int, ...]
    tokens_waiting: tuple[int, ...]
    rows_answered: tuple[int, ...]
    unanswered: int
    rejected: int
    expired: int
    cancelled: int
    degraded: int
    quality: float
