"""Gives memory that was freed back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def return_free_memory() -> None:
    """Gives memory that the C library keeps after it was freed back to the system; without effect if it is not glibc.

    Tensors of a model that is loaded while others are in use lie between theirs, so that what is freed later stays with
    the process: with overlapping requests, a server grew by 40 MB in 50 replacements of a model of 31 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
