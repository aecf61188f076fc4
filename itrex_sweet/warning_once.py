"""Warnings that a call of several steps gives once, although each of its steps finds the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_given: ContextVar[set[str] | None] = ContextVar("given warnings", default=None)


@contextmanager
def warnings_once() -> Iterator[None]:
    """Makes `is_first` return `True` once for each kind of warning inside the block."""
    token = _given.set(set())
    try:
        yield
    finally:
        _given.reset(token)


def is_first(kind: str) -> bool:
    """Returns whether the enclosing `warnings_once` has not had this kind of warning yet; `True` without one."""
    given = _given.get()
    if given is None:
        return True
    is_new = kind not in given
    given.add(kind)
    return is_new
