"""Sets the number of torch's threads: as requested, and one in a child after a fork.

Torch keeps its worker threads between computations. A forked child does not have them and would wait for them forever,
so it computes with one thread, as the workers of a `DataLoader` do.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from itrex_sweet.runtime.fork_gate import no_fork_meanwhile
from itrex_sweet.runtime.native.cores import validate_threads
from itrex_sweet.runtime.shutdown import pause_at_exit

logger = logging.getLogger(__name__)

Method = TypeVar("Method", bound=Callable[..., Any])

_is_child = False


def _note_fork() -> None:
    global _is_child
    _is_child = True


os.register_at_fork(after_in_child=_note_fork)


def is_forked_child() -> bool:
    """Returns whether this process was forked from one that had imported this module."""
    return _is_child


def one_thread_in_a_child() -> None:
    """Sets torch to one thread if the process is a forked child."""
    if _is_child and torch.get_num_threads() != 1:
        logger.info("Torch computes with one thread in a forked child; processes that are spawned use all.")
        torch.set_num_threads(1)


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Sets the number of torch's threads within the block; one in a forked child.

    Args:
        threads: `None` for torch's present number.

    Raises:
        ConfigError: an invalid number of threads.
    """
    threads = None if threads is None else validate_threads(threads)
    one_thread_in_a_child()
    before = torch.get_num_threads()
    if threads is None or threads == before or _is_child:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def torch_call(threads: int | None = None) -> Iterator[None]:
    """Runs the block as `computing_with` does, while forks of other threads and the interpreter's exit wait."""
    pause_at_exit()
    with no_fork_meanwhile(), computing_with(threads):
        yield


def on_own_threads(method: Method) -> Method:
    """Decorates a method to run as `torch_call` with the `asked_threads` of its object."""

    @functools.wraps(method)
    def run(self: Any, *arguments: Any, **named: Any) -> Any:
        with torch_call(self.asked_threads):
            return method(self, *arguments, **named)

    return run  # type: ignore[return-value]
