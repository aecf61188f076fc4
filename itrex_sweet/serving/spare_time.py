"""Computes waiting rows in the event loop while it has nothing else to do."""

from __future__ import annotations

import asyncio
import time

from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.scheduler import Scheduler

# Expected time of a run, in which the event loop reads and answers no request.
_SECONDS = 0.001
# Expected time of the rows that wait: less is left to the scheduler's own threads.
_BACKLOG_SECONDS = 0.003
# Duration of a turn of the event loop up to which it had nothing else to do; a request takes longer.
_QUIET_SECONDS = 0.00004


class SpareTime:
    """Runs short batches of waiting rows in the event loop, in turns of the loop in which it reads and answers nothing.

    The event loop of a busy server leaves a part of its core unused. Another thread that computes there delays it: the
    system takes up to milliseconds to give the core back to the event loop.

    Args:
        loop: the event loop that `offer` is called in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._offered: dict[Scheduler, Backend] = {}
        self._turn_began = 0.0

    def offer(self, scheduler: Scheduler, backend: Backend) -> None:
        """Runs rows of a scheduler as long as enough of them wait.

        Args:
            backend: see `Scheduler.short_step`.
        """
        if not self._offered:
            self._loop.call_soon(self._run)
        self._offered[scheduler] = backend

    def _run(self) -> None:
        is_quiet = time.perf_counter() - self._turn_began <= _QUIET_SECONDS
        offered, self._offered = self._offered, {}  # also if a step raises an error, the next offer is accepted
        for scheduler, backend in offered.items():
            if not is_quiet or scheduler.short_step(backend, _SECONDS, _BACKLOG_SECONDS):
                self.offer(scheduler, backend)
        self._turn_began = time.perf_counter()
