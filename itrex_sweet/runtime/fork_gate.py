"""Lets a fork wait until no other thread computes with torch.

Torch and oneDNN hold locks while they compute. One that another thread holds at the moment of a fork stays locked in
the child, which has no such thread, and the next call of the child would wait for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST_WAIT = 10.0  # seconds; a longer call is not waited for, so that a fork never hangs


class _ForkGate:
    """Counts the calls of each thread; a fork takes place between the calls of the others."""

    def __init__(self, own: threading.local, running: int = 0):
        self._idle = threading.Condition()
        self._own = own
        self._running = running

    @property
    def own_calls(self) -> int:
        """Calls, one inside the other, of this thread."""
        return getattr(self._own, "calls", 0)

    def enter(self) -> None:
        with self._idle:
            self._running += 1
        self._own.calls = self.own_calls + 1

    def leave(self) -> None:
        self._own.calls -= 1
        with self._idle:
            self._running -= 1
            self._idle.notify_all()

    def close(self) -> None:
        """Waits for the calls of other threads, and lets none begin."""
        self._idle.acquire()
        self._idle.wait_for(lambda: self._running <= self.own_calls, _LONGEST_WAIT)

    def open(self) -> None:
        """Lets calls begin again."""
        self._idle.release()

    def renewed(self) -> _ForkGate:
        """A gate for the child, in which this thread is the only one."""
        return _ForkGate(self._own, self.own_calls)


_gate = _ForkGate(threading.local())


def _renew() -> None:
    global _gate
    _gate = _gate.renewed()


os.register_at_fork(before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_renew)


@contextmanager
def no_fork_meanwhile() -> Iterator[None]:
    """Keeps other threads from forking while the block computes with torch."""
    _gate.enter()
    try:
        yield
    finally:
        _gate.leave()  # in a child that was forked inside the block, of the new gate, which counts the block too
