"""The rows behind a Trainer's dataloader: which they were, so that calibration can tell them from others later, and
their labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.errors import TrainingSetupError

_TOKENS, _MASK = "input_ids", "attention_mask"
_LABELS = ("labels", "label", "label_ids")  # as transformers' collators call them


def fingerprints_of(dataloader: Any) -> Fingerprints | None:
    """Fingerprints of the rows behind a Trainer's dataloader.

    Padding, as far as an attention mask tells it, is left out.

    Returns:
        `None` unless the data is a `datasets.Dataset`, or a list of mappings, that holds token ids: reading any other
        data ahead might change it, or take as long as training.
    """
    rows = _rows_of(getattr(dataloader, "dataset", None))
    return None if rows is None else Fingerprints.of(_unpadded(row) for row in rows)


def labels_of(dataloader: Any) -> list[int]:
    """The labels of the rows behind a Trainer's dataloader.

    Raises:
        TrainingSetupError: the data is neither a `datasets.Dataset` nor a list of mappings, or has no label column:
            reading any other data ahead might change it, or take as long as training.
    """
    dataset = getattr(dataloader, "dataset", None)
    if isinstance(dataset, list) and dataset and all(isinstance(row, Mapping) for row in dataset):
        name = next((name for name in _LABELS if all(name in row for row in dataset)), None)
        labels = None if name is None else [row[name] for row in dataset]
    else:
        columns = getattr(dataset, "column_names", None)
        name = next((name for name in _LABELS if isinstance(columns, list) and name in columns), None)
        labels = None if name is None else list(dataset.with_format(None)[name])
    if labels is None:
        raise TrainingSetupError(
            "class_weights='balanced' needs the training labels, which only a datasets.Dataset or a list of mappings "
            f"with one of the columns {', '.join(_LABELS)} shows ahead: pass the weights as numbers, "
            "itrex_sweet.config.balanced_weights(labels, num_labels)."
        )
    return [int(label) for label in labels]


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
