"""Ownership of models, threads and contexts of the native engine.

Each is freed with its last reference; a running call holds one. None is freed at the interpreter's exit, because a
daemon thread may still be running the engine. A context keeps its model and threads alive inside the engine.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from dataclasses import dataclass
from typing import Any, NoReturn

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.native.interface import FEWER_THREADS, NUM_COUNTS
from itrex_sweet.runtime.native.library import Library

logger = logging.getLogger(__name__)

# Selects the engine's default, `kMinMacsPerThread` in csrc/parallel.h.
DEFAULT_MIN_MACS = -1


class _Handle:
    """Owns an object of the engine. Copies return the same one, so that it is freed once.

    Args:
        library: the library that created the object.
        address: of the object.
        free: name of the function that frees it.
    """

    def __init__(self, library: Library, address: int, free: str):
        self._library = library
        self._address = address
        weakref.finalize(self, getattr(library, free), address).atexit = False

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of `csrc/api.h` whose first argument is the object; see `Library.call`.

        Raises:
            SweetError: the call failed; contains the engine's message.
        """
        return self._library.call(function, self._address, *arguments)

    def __copy__(self) -> _Handle:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Handle:
        return self

    def __reduce__(self) -> NoReturn:
        raise BackendUnavailable(
            "A packed model of the native engine cannot be pickled. Pickle the artifact's path instead, and load it in "
            "the other process."
        )


class EngineModel(_Handle):
    """Owns one `sweet_model`: packed weights, which never change.

    Args:
        library: the library that created the model.
        address: the result of `sweet_model_new`.
    """

    def __init__(self, library: Library, address: int):
        super().__init__(library, address, "sweet_model_free")

    def context(self, threads: EngineThreads, min_macs_per_thread: int = DEFAULT_MIN_MACS) -> EngineContext:
        """Creates a context whose calls run on these threads.

        Args:
            min_macs_per_thread: multiply-accumulates per thread below which a call uses fewer threads; 0 uses all
                threads for every call.

        Raises:
            SweetError: out of memory.
        """
        address = self._library.call("sweet_context_new", self._address, threads._address, min_macs_per_thread)
        return EngineContext(self._library, address, threads)


@dataclass(frozen=True)
class ThreadCounts:
    """Numbers of calls and threads.

    Args:
        calls: calls in progress, of which some may wait for a thread.
        threads: threads that calls use.
        most_calls: maximum number of calls that ran at the same time.
        most_threads: maximum number of threads that calls used at the same time.
    """

    calls: int
    threads: int
    most_calls: int
    most_threads: int


class EngineThreads(_Handle):
    """Owns one `sweet_threads`: the threads that the calls of several contexts share.

    Args:
        library: creates the threads.
        threads: maximum number of threads that run at the same time, callers included.

    Raises:
        SweetError: out of memory.
    """

    def __init__(self, library: Library, threads: int):
        super().__init__(library, library.call("sweet_threads_new", threads), "sweet_threads_free")
        self.threads = threads
        self._yields = False
        self._has_warned_about_shortage = False

    def counts(self) -> ThreadCounts:
        """Returns the current numbers of calls and threads, and the maxima of this process."""
        numbers = (ctypes.c_int64 * NUM_COUNTS)()
        self.call("sweet_threads_count", ctypes.addressof(numbers))
        return ThreadCounts(*numbers)

    def wake(self) -> None:
        """Wakes sleeping threads for a call that follows at once."""
        self._library.sweet_threads_wake(self._address)

    def set_yields(self, yields: bool) -> None:
        """Sets whether calls leave processors to other threads sooner, because these do as useful work there."""
        if yields != self._yields:
            self._yields = yields
            self._library.sweet_threads_yield(self._address, yields)

    def warn_about_shortage(self) -> None:
        """Warns once that calls run on fewer threads than wanted."""
        if self._has_warned_about_shortage:
            return
        self._has_warned_about_shortage = True
        logger.warning(
            "The system refused to start a thread for the native engine, which continues with fewer threads and "
            "runs slower. Check the limits on processes and address space (ulimit -u, ulimit -v, the container's "
            "pids limit), or load the model with fewer threads."
        )


class EngineContext(_Handle):
    """Owns one `sweet_context`: the workspaces of one call at a time.

    Args:
        library: the library that created the context.
        address: the result of `sweet_context_new`.
        threads: that its calls run on.
    """

    def __init__(self, library: Library, address: int, threads: EngineThreads):
        super().__init__(library, address, "sweet_context_free")
        self._threads = threads

    def run(self, function: str, *arguments: Any) -> None:
        """Calls a function that returns a `sweet_result`, and warns once if it ran on fewer threads than wanted.

        Raises:
            SweetError: as of `call`.
        """
        result = getattr(self._library, function)(self._address, *arguments)
        if result != 0:
            self._check(function, result)

    def _check(self, function: str, result: int) -> None:
        if result < 0:
            raise SweetError(f"{function}: {self._library.error()}")
        if result == FEWER_THREADS:
            self._threads.warn_about_shortage()
