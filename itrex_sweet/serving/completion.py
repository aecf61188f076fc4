"""Hands results of worker threads to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from itrex_sweet.errors import RequestError
from itrex_sweet.serving.failures import CANCELLED

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_WATCH_AFTER = 0.02  # seconds; most answers come earlier, and do not pay for a task that watches the connection


class Completions:
    """Delivers results to the event loop: those that arrive before it runs share one wake-up.

    Args:
        loop: the event loop that `wait` is called in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self._ended: deque[tuple[asyncio.Future, Future]] = deque()
        self._is_woken = False

    async def wait(self, future: Future, receive: Receive | None = None) -> Any:
        """Returns the result of a future of a worker thread; cancels it if the caller is cancelled.

        Args:
            receive: of a request whose body was read: if its client leaves, the future is cancelled.

        Raises:
            RequestError: the client has left.
        """
        waiter = self.loop.create_future()
        future.add_done_callback(lambda done: self._put(waiter, done))
        departure = None if receive is None else _Departure(self.loop, receive, waiter)
        try:
            return await waiter
        except BaseException:
            future.cancel()
            raise
        finally:
            if departure is not None:
                departure.close()

    def _put(self, waiter: asyncio.Future, done: Future) -> None:
        """Queues a result; runs in the thread that computed it."""
        self._ended.append((waiter, done))
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # first: a result that is queued from here on wakes the loop again
        while self._ended:
            waiter, done = self._ended.popleft()
            if waiter.done():
                continue
            if done.cancelled():
                waiter.cancel()
            elif (error := done.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(done.result())


class _Departure:
    """Watches a connection while an answer is computed, and fails the waiter if the client leaves."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, waiter: asyncio.Future):
        self._loop, self._receive, self._waiter = loop, receive, waiter
        self._task: asyncio.Task | None = None
        self._timer = loop.call_later(_WATCH_AFTER, self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._waiter.done():
            self._waiter.set_exception(RequestError(CANCELLED, "the client has left"))

    def close(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
