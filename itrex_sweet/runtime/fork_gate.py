"""Delays a fork until no other thread computes with torch.

Torch, oneDNN and MKL hold locks while they compute, and MKL also while a thread that has computed exits. A lock that
another thread holds during a fork stays locked in the child, where that thread does not exist, so the child's next call
would deadlock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Maximum seconds to wait for calls, and for exiting threads, so that a fork never hangs.
_LONGEST_CALL, _LONGEST_END = 10.0, 1.0
_MAX_CALLERS = 1000  # recorded threads, above which those that have exited are removed


class _ForkGate:
    """Counts the running calls of each thread; a fork waits until other threads run none."""

    def __init__(self, own: threading.local, running: int = 0):
        self._idle = threading.Condition()
        self._own = own
        self._running = running
        self._callers: dict[int, threading.Thread] = {}  # that have computed, by native id

    @property
    def own_calls(self) -> int:
        """Number of nested calls of this thread."""
        return getattr(self._own, "calls", 0)

    def enter(self) -> None:
        with self._idle:
            self._running += 1
            self._callers[threading.get_native_id()] = threading.current_thread()
            if len(self._callers) > _MAX_CALLERS:
                self._callers = {id_: thread for id_, thread in self._callers.items() if _exists(id_)}
        self._own.calls = self.own_calls + 1

    def leave(self) -> None:
        self._own.calls -= 1
        with self._idle:
            self._running -= 1
            self._idle.notify_all()

    def close(self) -> None:
        """Blocks new calls, and waits for the running calls of other threads and for threads that are exiting."""
        self._idle.acquire()
        self._idle.wait_for(lambda: self._running <= self.own_calls, _LONGEST_CALL)
        self._wait_for_the_ending()

    def _wait_for_the_ending(self) -> None:
        """Waits until threads that have ended in Python have also exited in the operating system."""
        until = time.monotonic() + _LONGEST_END
        while True:
            time.sleep(0)  # the interpreter does not switch to another thread soon after it
            ended = [id_ for id_, thread in self._callers.items() if not thread.is_alive()]
            if not any(map(_exists, ended)) or time.monotonic() > until:
                for id_ in ended:
                    del self._callers[id_]
                return
            time.sleep(0.0005)

    def open(self) -> None:
        """Allows calls again."""
        self._idle.release()

    def renewed(self) -> _ForkGate:
        """Returns the gate for a child process, in which this thread is the only one."""
        return _ForkGate(self._own, self.own_calls)


def _exists(thread: int) -> bool:
    """Returns whether the process has a thread with this native id, on Linux."""
    return os.path.exists(f"/proc/self/task/{thread}")


_gate = _ForkGate(threading.local())


def _renew() -> None:
    global _gate
    _gate = _gate.renewed()


os.register_at_fork(before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_renew)


@contextmanager
def no_fork_meanwhile() -> Iterator[None]:
    """Blocks forks of other threads while the block computes with torch."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()  # in a child that was forked inside the block, of the new gate, which counts the block too
