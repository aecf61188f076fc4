"""One place that decides whether a progress bar is shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Iterates, with a bar where one is wanted.

    Args:
        description: left of the bar.
        total: number of items, if `items` has no length.
        unit: what an item is.
    """
    yield from progress_bar(description, total, unit, items)


def progress_bar(
    description: str, total: int | None = None, unit: str = "it", items: Iterable[Item] | None = None
) -> tqdm[Item]:
    """A bar on standard error, to be moved by hand or to iterate over.

    None is shown where standard error is no terminal, or where transformers' progress bars, or everything
    below its errors, were switched off.

    Args:
        description: left of the bar.
        total: number of items, if `items` has no length.
        unit: what an item is.
        items: to iterate over.
    """
    from tqdm import tqdm
    from transformers.utils import logging

    quiet = not logging.is_progress_bar_enabled() or logging.get_verbosity() >= logging.ERROR
    # `None` leaves it to tqdm, which shows a bar on terminals only.
    return tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        file=sys.stderr,
        disable=True if quiet else None,
        leave=False,
        dynamic_ncols=True,
    )
