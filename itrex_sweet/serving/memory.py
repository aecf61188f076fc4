"""Memory of a server process: what the garbage collector looks at, and what is given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def keep_out_of_collections() -> None:
    """Excludes the objects that exist now from the garbage collector's later runs, which stop all requests.

    They are still freed when nothing refers to them. Called once, when a server that owns the process has loaded its
    models.
    """
    gc.collect()
    gc.freeze()


def return_free_memory() -> None:
    """Gives memory that the C library keeps after it was freed back to the system; without effect if it is not glibc.

    Tensors of a model that is loaded while others are in use lie between theirs, so that what is freed later stays with
    the process: with overlapping requests, a server grew by 40 MB in 50 replacements of a model of 31 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
