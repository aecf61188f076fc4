"""Contexts for concurrent calls of one model."""

from __future__ import annotations

from typing import Any

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.native.handle import EngineContext, EngineModel, EngineThreads

# Unused contexts that are kept, if there are fewer threads. The memory of a context grows to its largest call.
_MIN_KEPT = 4


class Contexts:
    """Runs each call on a context that no other call uses, so that calls of several threads run at the same time.

    The context that was used last is used first: calls that come one by one share one context. Thread-safe.

    Args:
        model: packed weights.
        threads: that all contexts share.
        min_macs_per_thread: of `EngineModel.context`.
    """

    def __init__(self, model: EngineModel, threads: EngineThreads, min_macs_per_thread: int):
        self._model = model
        self._threads = threads
        self._min_macs_per_thread = min_macs_per_thread
        self._max_kept = max(threads.threads, _MIN_KEPT)
        self._unused: list[EngineContext] = []

    def run(self, function: str, *arguments: Any) -> None:
        """Calls a function of `csrc/api.h` with a context and the arguments; see `EngineContext.run`.

        Raises:
            SweetError: the call failed.
            BackendUnavailable: out of memory for another context.
        """
        try:
            context = self._unused.pop()
        except IndexError:
            context = self._new()
        try:
            context.run(function, *arguments)
        finally:
            if len(self._unused) < self._max_kept:
                self._unused.append(context)

    def workspace_bytes(self) -> int:
        """Returns the bytes of the workspaces of unused contexts."""
        return sum(context.call("sweet_context_bytes") for context in tuple(self._unused))

    def _new(self) -> EngineContext:
        try:
            return self._model.context(self._threads, self._min_macs_per_thread)
        except SweetError as error:
            raise BackendUnavailable(f"Another call of the native engine cannot start: {error}") from error
