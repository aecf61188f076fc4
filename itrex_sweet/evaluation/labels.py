"""Validation of labels: ids, vectors of ones and zeros, or values, by task."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrex_sweet.errors import InputError
from itrex_sweet.tasks import MULTI_LABEL, REGRESSION, Task


def checked_labels(labels: Any, rows: int, num_labels: int, name: str, task: Task | None = None) -> np.ndarray:
    """Returns labels from a sequence, an array or a tensor: for single-label classification (rows,) int64, for
    multi-label classification (rows, labels) int64 of ones and zeros, for regression (rows,) float32.

    Args:
        rows: expected number of labels.
        num_labels: number of classes; ids are from 0 to `num_labels - 1`.
        name: of the data, for messages.
        task: single-label classification by default.

    Raises:
        InputError: not one integer in range for each row; not one vector or value for each row.
    """
    if task is not None and task.name == MULTI_LABEL:
        return _label_vectors(labels, rows, num_labels, name)
    if task is not None and task.name == REGRESSION:
        return _values(labels, rows, name)
    try:
        given = np.asarray(labels)
        if given.dtype == object or given.dtype.kind not in "biuf":
            given = np.asarray([_number(label) for label in labels], dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the labels of {name} are not label ids: {error}") from error
    if given.shape != (rows,):
        raise InputError(f"{name} has labels of shape {given.shape} for {rows} rows; expected one id per row.")
    # Comparisons with NaN are false, so NaN is rejected too.
    bad = np.flatnonzero(~((given >= 0) & (given < num_labels) & (given == np.floor(given))))
    if len(bad):
        raise InputError(
            f"label {given[bad[0]]} of row {bad[0]} of {name}: must be from 0 to {num_labels - 1}.",
            tuple(bad.tolist()),
        )
    return given.astype(np.int64)


def _label_vectors(labels: Any, rows: int, num_labels: int, name: str) -> np.ndarray:
    try:
        given = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        lengths = [len(label) if hasattr(label, "__len__") else 0 for label in labels]
        wrong = next((row for row, length in enumerate(lengths) if length != num_labels), 0)
        raise InputError(
            f"the label of row {wrong} of {name} is not a vector of {num_labels} ones and zeros: {error}", (wrong,)
        ) from error
    if given.shape != (rows, num_labels):
        raise InputError(
            f"{name} has labels of shape {given.shape} for {rows} rows; expected a vector of {num_labels} ones and "
            "zeros per row."
        )
    bad = np.flatnonzero(~((given == 0) | (given == 1)).all(axis=1))
    if len(bad):
        raise InputError(
            f"label {given[bad[0]].tolist()} of row {bad[0]} of {name}: must be 1 for each label that applies and 0 "
            "for the others.",
            tuple(bad.tolist()),
        )
    return given.astype(np.int64)


def _values(labels: Any, rows: int, name: str) -> np.ndarray:
    try:
        given = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the labels of {name} are not numbers: {error}") from error
    given = given[:, 0] if given.shape == (rows, 1) else given
    if given.shape != (rows,):
        raise InputError(f"{name} has labels of shape {given.shape} for {rows} rows; expected one number per row.")
    bad = np.flatnonzero(~np.isfinite(given.astype(np.float32)))
    if len(bad):
        raise InputError(
            f"label {given[bad[0]]} of row {bad[0]} of {name}: must be a finite number.", tuple(bad.tolist())
        )
    return given.astype(np.float32)


def _number(label: Any) -> float:
    """Converts a label that NumPy keeps as an object, such as an integer that exceeds int64."""
    if isinstance(label, (bool, int, float, np.number)):
        return float(label) if abs(label) < 1e300 else float("inf")
    raise TypeError(f"{label!r} is {type(label).__name__}")
