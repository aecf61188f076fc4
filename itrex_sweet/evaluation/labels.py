"""Validation of label ids."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrex_sweet.errors import InputError


def checked_labels(labels: Any, rows: int, num_labels: int, name: str) -> np.ndarray:
    """Returns labels as (rows,) int64, from a sequence, an array or a tensor of integers.

    Args:
        rows: expected number of labels.
        num_labels: number of classes; ids are from 0 to `num_labels - 1`.
        name: of the data, for messages.

    Raises:
        InputError: not one integer in range for each row.
    """
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


def _number(label: Any) -> float:
    """Converts a label that NumPy keeps as an object, such as an integer that exceeds int64."""
    if isinstance(label, (bool, int, float, np.number)):
        return float(label) if abs(label) < 1e300 else float("inf")
    raise TypeError(f"{label!r} is {type(label).__name__}")
