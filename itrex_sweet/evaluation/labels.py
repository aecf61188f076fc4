"""Labels of rows, checked once for all that counts with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from itrex_sweet.errors import InputError


def checked_labels(labels: Any, rows: int, num_labels: int, name: str) -> np.ndarray:
    """(rows,) int64 of labels in any form: a sequence, an array or a tensor of whole numbers.

    Args:
        rows: how many there have to be.
        num_labels: ids go from 0 to one less.
        name: of what they are the labels of, for messages.

    Raises:
        InputError: not one whole number in range for each row.
    """
    try:
        given = np.asarray(labels)
        if given.dtype == object or given.dtype.kind not in "biuf":
            given = np.asarray([_number(label) for label in labels], dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the labels of {name} are no label ids: {error}") from error
    if given.shape != (rows,):
        raise InputError(f"{name} has labels of shape {given.shape} for {rows} rows: one id for each is needed.")
    # NaN compares as unequal, and is refused with the rest.
    bad = np.flatnonzero(~((given >= 0) & (given < num_labels) & (given == np.floor(given))))
    if len(bad):
        raise InputError(
            f"label {given[bad[0]]} of row {bad[0]} of {name}: the model's labels go from 0 to {num_labels - 1}.",
            tuple(bad.tolist()),
        )
    return given.astype(np.int64)


def _number(label: Any) -> float:
    """Of a label that NumPy keeps as an object: an integer beyond its own, or something else."""
    if isinstance(label, (bool, int, float, np.number)):
        return float(label) if abs(label) < 1e300 else float("inf")
    raise TypeError(f"{label!r} is {type(label).__name__}")
