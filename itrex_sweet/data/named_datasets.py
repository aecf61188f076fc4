"""Loads data sets with the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from itrex_sweet.data.line import Line
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.extras import require

_SLICE = re.compile(r"(?P<split>\w+)\[(?P<start>\d*):(?P<stop>\d*)\]")


def load_named_dataset(name: str, config: str | None, split: str | None) -> Any:
    """Loads a split of a data set, or a slice of it (`train[6000:6300]`), from the Hub, its cache or a folder.

    Raises:
        MissingExtraError: `datasets` is not installed.
        InputError: the data set cannot be loaded.
        ConfigError: no such split, or several splits and none is given.
    """
    datasets = require("datasets", f"{name!r}, which is not a file,")
    path = Path(name)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config)
    # `datasets` passes on the exceptions of its readers: those of files, networks and parsers.
    except (
        *(OSError, ValueError, RuntimeError, TypeError, KeyError, NotImplementedError),
        datasets.exceptions.DatasetsError,
    ) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[0]
        if isinstance(error, datasets.exceptions.DatasetGenerationError):  # its first line gives no reason
            reason = " ".join([*lines, *str(error.__cause__ or "").splitlines()][:2])
        raise InputError(f"{name} is not a file and cannot be loaded as a data set: {reason}") from error
    part = _SLICE.fullmatch(split or "")
    rows = _split_of(loaded, name, part["split"] if part else split)
    if part is None:
        return rows
    start, stop, _ = slice(int(part["start"] or 0), int(part["stop"]) if part["stop"] else None).indices(len(rows))
    return rows.select(list(range(start, stop)))


def _split_of(loaded: Any, name: str, split: str | None) -> Any:
    """Returns one split of a loaded data set, or all of it if it has no splits."""
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        problem = "has several splits" if split is None else f"has no split {split!r}"
        raise ConfigError(f"{name} {problem}; choose one of {', '.join(loaded)}.")
    return loaded[split]


def dataset_lines(dataset: Iterable[Mapping[str, Any]], name: str) -> Iterator[Line]:
    """Yields the rows of a data set."""
    for number, record in enumerate(dataset):
        yield Line(f"{name}, row {number}", record)
