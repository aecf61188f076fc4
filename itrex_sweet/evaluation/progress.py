"""One place that decides whether a progress bar is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Iterates, with a bar on standard error where one is wanted.

    None is shown where standard error is no terminal, or where transformers' progress bars, or everything
    below its errors, were switched off.

    Args:
        description: left of the bar.
        total: number of items, if `items` has no length.
        unit: what an item is.
    """
    from tqdm import tqdm
    from transformers.utils import logging

    quiet = not logging.is_progress_bar_enabled() or logging.get_verbosity() >= logging.ERROR
    # `None` leaves it to tqdm, which shows a bar on terminals only.
    yield from tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        file=sys.stderr,
        disable=True if quiet else None,
        leave=False,
        dynamic_ncols=True,
    )
