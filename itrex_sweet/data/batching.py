"""Groups rows into batches; of a live source, each batch contains the rows that have arrived."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

from itrex_sweet.data.rows import TextRow

MAX_CHARACTERS = 1 << 22  # of a batch, and of the rows that are read ahead; bounds the memory
_GRACE = 0.005  # seconds to wait for more rows after the first row of a batch
# Maximum seconds of a wait for rows: CPython misses a signal that arrives just before the main thread waits for a lock,
# and calls its handler after the wait only.
_SIGNAL_DELAY = 0.5


def batches(rows: Iterable[TextRow], size: int, live: bool) -> Iterator[list[TextRow]]:
    """Yields rows in batches, in their order.

    Args:
        rows: if `live`, read in a thread of its own.
        size: maximum number of rows in a batch.
        live: the writer of the rows may wait for answers: yield the rows that have arrived. Otherwise fill each batch.

    Raises:
        Any exception of `rows`, after the rows before it are yielded.
    """
    if live:
        yield from _LiveReader(rows, size).batches()
        return
    batch, characters = [], 0
    for row in rows:
        batch.append(row)
        characters += _characters(row)
        if len(batch) == size or characters >= MAX_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _LiveReader:
    """Reads at most one batch of rows ahead, in a thread."""

    def __init__(self, rows: Iterable[TextRow], size: int):
        self._rows, self._size = rows, size
        self._waiting: deque[TextRow] = deque()
        self._characters = 0
        self._changed = threading.Condition()
        self._is_finished = self._is_closed = False
        self._error: BaseException | None = None

    def batches(self) -> Iterator[list[TextRow]]:
        # A daemon thread: it may block on a pipe when the process ends.
        threading.Thread(target=self._read, name="itrex-sweet reading", daemon=True).start()
        try:
            while batch := self._next():
                yield batch
        finally:
            with self._changed:
                self._is_closed = True
                self._changed.notify_all()
        if self._error is not None:
            raise self._error

    def _next(self) -> list[TextRow]:
        with self._changed:
            while not self._changed.wait_for(lambda: self._waiting or self._is_finished, _SIGNAL_DELAY):
                pass
            end = time.monotonic() + _GRACE
            while not self._is_full() and not self._is_finished and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            batch = list(self._waiting)
            self._waiting.clear()
            self._characters = 0
            self._changed.notify_all()
            return batch

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._size or self._characters >= MAX_CHARACTERS

    def _read(self) -> None:
        try:
            for row in self._rows:
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_full() or self._is_closed)
                    if self._is_closed:
                        return
                    self._waiting.append(row)
                    self._characters += _characters(row)
                    self._changed.notify_all()
        except BaseException as error:  # raised again in `batches`
            self._error = error
        finally:
            with self._changed:
                self._is_finished = True
                self._changed.notify_all()


def _characters(row: TextRow) -> int:
    return sum(map(len, (row.text,) if isinstance(row.text, str) else row.text or ()))
