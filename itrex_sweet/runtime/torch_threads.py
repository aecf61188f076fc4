"""Torch's threads: as many as were asked for, and one in a child after a fork.

Torch keeps the threads of its last computation for the next one. A forked child has none of them and would wait for
them for ever, so it computes with one thread from its first call on, as the workers of a `DataLoader` do.
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
    """True if this process was forked from one that had loaded this module."""
    return _is_child


def one_thread_in_a_child() -> None:
    """Sets torch to one thread where the process is a forked child."""
    if _is_child and torch.get_num_threads() != 1:
        logger.info("Torch computes with one thread in a forked child; processes that are spawned use all.")
        torch.set_num_threads(1)


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Lets torch compute with a number of threads, then with as many as before; one in a forked child.

    Args:
        threads: `None` for as many as torch is set to.

    Raises:
        ConfigError: a number of threads that is none.
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
    """Lets the block compute as `computing_with` does, while no other thread forks and the interpreter does not end."""
    pause_at_exit()
    with no_fork_meanwhile(), computing_with(threads):
        yield


def on_own_threads(method: Method) -> Method:
    """Makes a method a `torch_call` with the threads in the `asked_threads` of its object."""

    @functools.wraps(method)
    def run(self: Any, *arguments: Any, **named: Any) -> Any:
        with torch_call(self.asked_threads):
            return method(self, *arguments, **named)

    return run  # type: ignore[return-value]
