"""Lets daemon threads finish what they compute before the interpreter ends.

A daemon thread that is inside torch when the interpreter ends is unwound through C++ that does not allow it, and the
process aborts. So at exit, threads other than the main one stop at the next call or batch, and the interpreter waits
for that.
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

# Seconds that the interpreter waits at most: for calls to come to an end, some batches of a large model; and then for
# threads to come to rest, which those that wait for something else do not.
_FOR_CALLS, _FOR_REST = 30.0, 0.1


class _Calls:
    """Counts the threads that are inside a call; the main thread, which ends the interpreter, is not one of them."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._own = threading.local()
        self._running = 0
        self._callers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # that are not at rest
        self._is_ending = False
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
        """Stops a thread for ever, once the interpreter is ending."""
        if self._is_ending and getattr(self._own, "is_inside", False):
            self._leave()
            self._rest()

    def wait(self) -> None:
        """Returns when no thread is inside a call any more, and none enters one."""
        with self._changed:
            self._is_ending = True
            self._changed.wait_for(lambda: self._running == 0, _FOR_CALLS)
            self._changed.wait_for(lambda: not any(caller.is_alive() for caller in self._callers), _FOR_REST)

    def _enter(self) -> None:
        with self._changed:
            if not self._is_ending:
                self._running += 1
                self._own.is_inside = True
                self._callers.add(threading.current_thread())
                return
        self._rest()

    def _leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._own.is_inside = False
            if self._is_ending:
                self._changed.notify_all()

    def _rest(self) -> None:
        """Never returns: a thread that waits for a lock leaves the interpreter alone."""
        with self._changed:
            self._callers.discard(threading.current_thread())
            self._changed.notify_all()
        self._never.acquire()


def _reset_in_child() -> None:
    """The parent's threads are not in a child, and one of them may have held the lock."""
    global _calls
    _calls = _Calls()


_calls = _Calls()
atexit.register(lambda: _calls.wait())
os.register_at_fork(after_in_child=_reset_in_child)


def finish_before_exit(function: Function) -> Function:
    """Makes the interpreter wait at its end for a call that a daemon thread is in, up to its next `pause_at_exit`."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        return _calls.run(function, arguments, named)

    return run  # type: ignore[return-value]


def pause_at_exit() -> None:
    """Stops a daemon thread here if the interpreter is ending. No lock may be held."""
    _calls.pause()
