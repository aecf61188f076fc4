"""Ownership of a model in the native engine."""

from __future__ import annotations

import logging
import weakref
from typing import Any, NoReturn

from itrex_sweet.errors import BackendUnavailable, SweetError
from itrex_sweet.runtime.native.interface import FEWER_THREADS
from itrex_sweet.runtime.native.library import Library

logger = logging.getLogger(__name__)


class EngineModel:
    """Owns one `sweet_model`. Copies return the same object, so that the model is freed once.

    The model is freed with the last reference; a running call holds one. It is not freed at the interpreter's exit,
    because a daemon thread may still be running the engine.

    Args:
        library: the library that created the model.
        address: the result of `sweet_model_new`.
    """

    def __init__(self, library: Library, address: int):
        self._library = library
        self._address = address
        self._has_warned_about_threads = False
        weakref.finalize(self, library.sweet_model_free, address).atexit = False

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of `csrc/api.h` whose first argument is the model; see `Library.call`.

        Raises:
            SweetError: the call failed; contains the engine's message.
        """
        return self._library.call(function, self._address, *arguments)

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
        if result == FEWER_THREADS and not self._has_warned_about_threads:
            self._has_warned_about_threads = True
            logger.warning(
                "The system refused to start a thread for the native engine, which continues with fewer threads and "
                "runs slower. Check the limits on processes and address space (ulimit -u, ulimit -v, the container's "
                "pids limit), or load the model with fewer threads."
            )

    def __copy__(self) -> EngineModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineModel:
        return self

    def __reduce__(self) -> NoReturn:
        raise BackendUnavailable(
            "A packed model of the native engine cannot be pickled. Pickle the artifact's path instead, and load it in "
            "the other process."
        )
