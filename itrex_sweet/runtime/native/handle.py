"""A model that the engine packed, for as long as somebody uses it."""

from __future__ import annotations

import logging
import weakref
from typing import Any, NoReturn

from itrex_sweet.errors import BackendUnavailable
from itrex_sweet.runtime.native.interface import SHORT_OF_THREADS
from itrex_sweet.runtime.native.library import Library

logger = logging.getLogger(__name__)


class EngineModel:
    """Owns one `sweet_model`. Copies are the same object, so that it is freed once.

    It is freed when the last reference goes, and a call holds one, so never under a call. At the interpreter's exit it
    is not freed: a daemon thread may be inside the engine then and until the process ends.

    Args:
        library: that made it.
        address: what `sweet_model_new` returned.
    """

    def __init__(self, library: Library, address: int):
        self._library = library
        self._address = address
        self._is_short_of_threads = False
        weakref.finalize(self, library.sweet_model_free, address).atexit = False

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of `csrc/api.h` that takes the model first.

        Returns:
            as `Library.call`.

        Raises:
            SweetError: it failed; the message is the engine's.
        """
        result = self._library.call(function, self._address, *arguments)
        if result == SHORT_OF_THREADS and function in _CALLS and not self._is_short_of_threads:
            self._is_short_of_threads = True
            logger.warning(
                "The system did not start as many threads as the native engine asked for: it goes on with fewer, and "
                "slower. Look at the limits on processes and address space (ulimit -u, ulimit -v, the container's "
                "pids limit), or load the model with fewer threads."
            )
        return result

    def __copy__(self) -> EngineModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineModel:
        return self

    def __reduce__(self) -> NoReturn:
        raise BackendUnavailable(
            "A model that the native engine packed cannot be pickled. Pickle the name of its folder, and load it there."
        )


# The functions whose result may be `SHORT_OF_THREADS`.
_CALLS = frozenset({"sweet_embed", "sweet_probe", "sweet_advance", "sweet_answer"})
