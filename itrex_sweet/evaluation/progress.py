"""Progress bars that respect the verbosity of transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], description: str, total: int | None = None, unit: str = "it") -> Iterator[Item]:
    """Iterates over items with a progress bar.

    Args:
        description: text to the left of the bar.
        total: number of items, if `items` has no length.
        unit: name of an item.
    """
    yield from progress_bar(description, total, unit, items)


def progress_bar(
    description: str, total: int | None = None, unit: str = "it", items: Iterable[Item] | None = None
) -> tqdm[Item]:
    """Returns a progress bar on standard error, to be updated manually or iterated over.

    No bar is shown if standard error is not a terminal, or if progress bars or warnings of transformers are disabled.

    Args:
        description: text to the left of the bar.
        total: number of items, if `items` has no length.
        unit: name of an item.
        items: to iterate over.
    """
    from tqdm import tqdm
    from transformers.utils import logging

    quiet = not logging.is_progress_bar_enabled() or logging.get_verbosity() >= logging.ERROR
    # With `None`, tqdm shows a bar only on terminals.
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
