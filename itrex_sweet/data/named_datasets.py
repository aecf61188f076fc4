"""Data sets that the `datasets` library finds by name."""

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
    """One split of a data set, or some of its rows (`train[6000:6300]`), from the hub, its cache or a folder."""
    datasets = require("datasets", f"{name!r}, which is no file here,")
    path = Path(name)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, config)
    # `datasets` raises what its readers raise: beside its own errors those of files, networks and parsers.
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, NotImplementedError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{name} is neither a file here nor a data set that could be loaded: {first_line}") from error
    part = _SLICE.fullmatch(split or "")
    rows = _split_of(loaded, name, part["split"] if part else split)
    if part is None:
        return rows
    start, stop, _ = slice(int(part["start"] or 0), int(part["stop"]) if part["stop"] else None).indices(len(rows))
    return rows.select(list(range(start, stop)))


def _split_of(loaded: Any, name: str, split: str | None) -> Any:
    """One split of what `datasets` loaded; all of it where it has none."""
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        asked = "has several splits" if split is None else f"has no split {split!r}"
        raise ConfigError(f"{name} {asked}; choose one of {', '.join(loaded)}.")
    return loaded[split]


def dataset_lines(dataset: Iterable[Mapping[str, Any]], name: str) -> Iterator[Line]:
    """The rows of a data set, placed by its name and their number."""
    for number, record in enumerate(dataset):
        yield Line(f"{name}, row {number}", record)
