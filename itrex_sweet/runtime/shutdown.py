"""Makes the interpreter wait at exit for daemon threads that compute.

If the interpreter exits while a daemon thread is inside torch, the thread is unwound through C++ code that does not
allow it, and the process aborts. At exit, threads other than the main thread therefore block at their next call or
batch, and the interpreter waits until they do.
"""

from __future__ import annotations

import atexit
import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# Maximum seconds that the interpreter waits: for running calls, and then for their threads to block. A thread that
# waits for something else does not block here.
_FOR_CALLS, _FOR_BLOCKING = 30.0, 0.1


class _Calls:
    """Counts the threads inside a call, except the main thread, which runs the exit handlers."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._own = threading.local()
        self._running = 0
        self._callers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # that are not blocked
        self._is_exiting = False
        self._never = threading.Lock()
        self._never.acquire()

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if threading.current_thread() is threading.main_thread() or getattr(self._own, "is_inside", False):
            return function(*arguments, **named)
        self._enter()
        try:
            return function(*arguments, **named)
        finally:
            self._leave()

    def pause(self) -> None:
        """Blocks the thread forever if the interpreter is exiting."""
        if self._is_exiting and getattr(self._own, "is_inside", False):
            self._leave()
            self._block()

    def wait(self) -> None:
        """Waits until no thread is inside a call, and lets none enter one."""
        with self._changed:
            self._is_exiting = True
            self._changed.wait_for(lambda: self._running == 0, _FOR_CALLS)
            self._changed.wait_for(lambda: not any(caller.is_alive() for caller in self._callers), _FOR_BLOCKING)

    def _enter(self) -> None:
        with self._changed:
            if not self._is_exiting:
                self._running += 1
                self._own.is_inside = True
                self._callers.add(threading.current_thread())
                return
        self._block()

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._own.is_inside = False
            if self._is_exiting:
                self._changed.notify_all()

    def _block(self) -> None:
        """Blocks on a lock forever, which is safe while the interpreter exits."""
        with self._changed:
            self._callers.discard(threading.current_thread())
            self._changed.notify_all()
        self._never.acquire()


def _reset_in_child() -> None:
    """Resets the counts: a child has none of its parent's threads, and one of them may have held the lock."""
    global _calls
    _calls = _Calls()


_calls = _Calls()
atexit.register(lambda: _calls.wait())
os.register_at_fork(after_in_child=_reset_in_child)


def finish_before_exit(function: Function) -> Function:
    """Decorates a function so that the interpreter waits at exit for a call of it, up to its next `pause_at_exit`."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        return _calls.run(function, arguments, named)

    return run  # type: ignore[return-value]


def pause_at_exit() -> None:
    """Blocks a daemon thread here if the interpreter is exiting. The caller must hold no lock."""
    _calls.pause()
