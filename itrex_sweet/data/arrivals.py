"""Batches of what has arrived: a row is not kept waiting for others, and others that are there come along."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

from itrex_sweet.data.rows import TextRow

MOST_CHARACTERS = 1 << 22  # of a batch, and of what is read ahead: a bound on memory
_GRACE = 0.005  # seconds from a batch's first row, in which more are waited for


def batches(rows: Iterable[TextRow], size: int, live: bool) -> Iterator[list[TextRow]]:
    """Rows in their order, in batches.

    Args:
        rows: read in a thread of its own where `live`.
        size: rows of a batch at most.
        live: the rows come from somebody who may wait for answers: give what has arrived. Else batches are full.

    Raises:
        what `rows` raises, once those before are given.
    """
    if live:
        yield from _Arrivals(rows, size).batches()
        return
    batch, characters = [], 0
    for row in rows:
        batch.append(row)
        characters += _characters(row)
        if len(batch) == size or characters >= MOST_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Arrivals:
    """Rows that a thread reads ahead, one batch of them at most."""

    def __init__(self, rows: Iterable[TextRow], size: int):
        self._rows, self._size = rows, size
        self._waiting: deque[TextRow] = deque()
        self._characters = 0
        self._changed = threading.Condition()
        self._is_over = self._is_unwanted = False
        self._error: BaseException | None = None

    def batches(self) -> Iterator[list[TextRow]]:
        # A daemon: it may wait for a pipe while the process wants to end.
        threading.Thread(target=self._read, name="itrex-sweet reading", daemon=True).start()
        try:
            while batch := self._next():
                yield batch
        finally:
            with self._changed:
                self._is_unwanted = True
                self._changed.notify_all()
        if self._error is not None:
            raise self._error

    def _next(self) -> list[TextRow]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over)
            end = time.monotonic() + _GRACE
            while not self._is_full() and not self._is_over and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            batch = list(self._waiting)
            self._waiting.clear()
            self._characters = 0
            self._changed.notify_all()
            return batch

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._size or self._characters >= MOST_CHARACTERS

    def _read(self) -> None:
        try:
            for row in self._rows:
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_full() or self._is_unwanted)
                    if self._is_unwanted:
                        return
                    self._waiting.append(row)
                    self._characters += _characters(row)
                    self._changed.notify_all()
        except BaseException as error:  # raised again where batches are asked for
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()


def _characters(row: TextRow) -> int:
    return sum(map(len, (row.text,) if isinstance(row.text, str) else row.text or ()))
