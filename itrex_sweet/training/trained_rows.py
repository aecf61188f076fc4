"""Which rows a model was trained on, so that calibration can tell them from others later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from itrex_sweet.artifact.fingerprints import Fingerprints

_TOKENS, _MASK = "input_ids", "attention_mask"


def fingerprints_of(dataloader: Any) -> Fingerprints | None:
    """Fingerprints of the rows behind a Trainer's dataloader.

    Padding, as far as an attention mask tells it, is left out.

    Returns:
        `None` unless the data is a `datasets.Dataset`, or a list of mappings, that holds token ids: reading any other
        data ahead might change it, or take as long as training.
    """
    rows = _rows_of(getattr(dataloader, "dataset", None))
    return None if rows is None else Fingerprints.of(_unpadded(row) for row in rows)


def _rows_of(dataset: Any) -> Iterable[Mapping[str, Any]] | None:
    if isinstance(dataset, list):
        return dataset if all(isinstance(row, Mapping) and _TOKENS in row for row in dataset) else None
    columns = getattr(dataset, "column_names", None)
    if not isinstance(columns, list) or _TOKENS not in columns or not hasattr(dataset, "__len__"):
        return None
    return dataset.select_columns([name for name in (_TOKENS, _MASK) if name in columns]).with_format(None)


def _unpadded(row: Mapping[str, Any]) -> np.ndarray:
    tokens = np.asarray(row[_TOKENS])
    return tokens[np.asarray(row[_MASK], dtype=bool)] if _MASK in row else tokens
