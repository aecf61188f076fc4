"""Threads that run a scheduler."""

from __future__ import annotations

import os
import threading
import weakref

from itrex_sweet.arguments import finite_number, whole_number
from itrex_sweet.runtime.scheduler import Scheduler
from itrex_sweet.runtime.shutdown import finish_before_exit

_IDLE_SECONDS = 1.0  # after which an idle thread checks whether its runner still exists


class Runner:
    """Runs the steps of a scheduler in threads of its own.

    Args:
        scheduler: whose requests are answered.
        workers: number of threads, by default the calls that the backend can run at the same time.
    """

    def __init__(self, scheduler: Scheduler, workers: int | None = None):
        self.scheduler = scheduler
        workers = scheduler.backend.concurrent_calls if workers is None else workers
        self.workers = whole_number("workers", workers, minimum=1)
        scheduler.workers = self.workers
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        _runners.add(self)

    def start(self) -> Runner:
        """Starts the threads, unless they run already."""
        if not self._threads:
            self._stop = threading.Event()
            for number in range(self.workers):
                arguments = (self.scheduler, self._stop, weakref.ref(self))
                thread = threading.Thread(target=_work, args=arguments, name=f"itrex-sweet-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)
        return self

    def drain(self, seconds: float | None = None) -> bool:
        """Refuses new requests and waits until the accepted ones are answered; returns false if not after this time."""
        if seconds is not None:
            seconds = finite_number("seconds", seconds)  # before requests are refused
        self.scheduler.refuse()
        return self.scheduler.wait_until_answered(seconds)

    def close(self) -> None:
        """Fails requests without an answer with `SchedulerClosed`, and ends the threads after their running segment."""
        self._stop.set()
        self.scheduler.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads = []

    def __enter__(self) -> Runner:
        return self.start()

    def __exit__(self, *raised: object) -> None:
        self.close()


def _work(scheduler: Scheduler, stop: threading.Event, runner: weakref.ref[Runner]) -> None:
    while not stop.is_set():
        if scheduler.wait(_IDLE_SECONDS):
            _step(scheduler)
        elif runner() is None or scheduler.is_closed:
            return


@finish_before_exit
def _step(scheduler: Scheduler) -> None:
    try:
        scheduler.step()
    except BaseException:
        scheduler.close()  # rows may be lost, so that their requests would wait forever
        raise


_runners: weakref.WeakSet[Runner] = weakref.WeakSet()


def _start_in_child() -> None:
    """Starts the threads of runners again, which a child process does not have, with schedulers without requests."""
    for runner in list(_runners):
        runner.scheduler.reset_in_child()
        if runner._threads:
            runner._threads = []
            runner.start()


os.register_at_fork(after_in_child=_start_in_child)
