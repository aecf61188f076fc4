"""Shares processors between the event loop and the threads of the engine."""

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
# Share of a core that an event loop uses for reading and answering, above which the engine leaves it one sooner; and
# seconds between two measurements.
_BUSY_SHARE, _WINDOW_SECONDS = 0.35, 0.05


class SpareTime:
    """Runs short batches of waiting rows in the event loop, in turns of the loop in which it reads and answers nothing.

    The event loop of a busy server leaves a part of its core unused. Another thread that computes there delays it: the
    system takes up to milliseconds to give the core back to the event loop. So the engine leaves a core to an event
    loop that reads and answers many requests, which computes there in its spare time. An event loop with few requests
    is not worth a core.

    Args:
        loop: the event loop that `offer` is called in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._offered: dict[Scheduler, Backend] = {}
        self._turn_began = 0.0
        self._is_busy = False
        self._window_began = self._computed = self._used_before = 0.0

    def offer(self, scheduler: Scheduler, backend: Backend) -> None:
        """Runs rows of a scheduler as long as enough of them wait.

        Args:
            backend: see `Scheduler.short_step`.
        """
        if (now := time.perf_counter()) - self._window_began > _WINDOW_SECONDS:
            self._measure(now)
        scheduler.backend.set_yields(self._is_busy)
        self._will_run(scheduler, backend)

    def _will_run(self, scheduler: Scheduler, backend: Backend) -> None:
        if not self._offered:
            self._loop.call_soon(self._run)
        self._offered[scheduler] = backend

    def _run(self) -> None:
        began = time.perf_counter()
        is_quiet = began - self._turn_began <= _QUIET_SECONDS
        offered, self._offered = self._offered, {}  # also if a step raises an error, the next offer is accepted
        for scheduler, backend in offered.items():
            if not is_quiet or scheduler.short_step(backend, _SECONDS, _BACKLOG_SECONDS):
                self._will_run(scheduler, backend)
        self._turn_began = time.perf_counter()
        self._computed += self._turn_began - began

    def _measure(self, now: float) -> None:
        """Updates `_is_busy` by the processor time since the last call, without that of computing."""
        used = time.thread_time()
        spent = used - self._used_before - self._computed
        self._is_busy = spent > _BUSY_SHARE * (now - self._window_began)
        self._window_began, self._used_before, self._computed = now, used, 0.0
