"""The rows that a model is calibrated on: token ids, labels where there are any, and whether it has seen them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itrex_sweet.artifact.fingerprints import REPORTING, TRAINING, Fingerprints
from itrex_sweet.data import Rows, read_rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.ragged import TokenBatch

_TOKENS = "input_ids"

# role → what calibrating on such rows would spoil
CONSEQUENCES = {
    TRAINING: "confidences are too high on rows seen in training, so temperatures will be too low",
    REPORTING: "figures reported on them would no longer be held-out ones",
}


def read_held_out_rows(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None = None, **columns: Any
) -> tuple[TokenBatch, np.ndarray | None, str]:
    """Reads rows with a model's tokenizer.

    Args:
        source: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, a list of texts or of
            pairs, or `Rows`.
        max_length: tokens per row at most.
        columns: as in `read_rows`.

    Returns:
        the rows, their labels (rows,) int64 or `None`, and what was read, for messages.

    Raises:
        InputError: no rows, unreadable ones, or labels that the model does not have.
        ConfigError: columns that are not there, or a source of another type.
    """
    batch, labels, name = _read(model, source, max_length, columns)
    num_labels = model.config.num_labels
    bad = np.flatnonzero((labels < 0) | (labels >= num_labels)) if labels is not None else ()
    if len(bad):
        raise InputError(
            f"label {labels[bad[0]]} of calibration row {bad[0]}: the model's labels go from 0 to {num_labels - 1}.",
            tuple(bad.tolist()),
        )
    return batch, labels, name


def shares_seen_before(ours: Fingerprints, recorded: Mapping[str, Fingerprints]) -> dict[str, float]:
    """Role → share of these rows that the artifact was trained or reported on, where it is not 0."""
    shares = {role: ours.share_in(recorded[role]) for role in CONSEQUENCES if role in recorded}
    return {role: share for role, share in shares.items() if share > 0.0}


def _read(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None, columns: dict[str, Any]
) -> tuple[TokenBatch, np.ndarray | None, str]:
    if hasattr(source, "column_names") and _TOKENS in source.column_names:
        return _tokenized(model, source)
    if isinstance(source, Rows):
        rows = source
    elif isinstance(source, (str, os.PathLike)) or hasattr(source, "column_names"):
        rows = read_rows(source, label_names=model.artifact.given_label_names, **columns)
    elif isinstance(source, Sequence):
        rows = Rows(list(source), source="the calibration texts")
    else:
        raise ConfigError(
            f"calibration data of type {type(source).__name__}: give a file, the name of a data set, a "
            "datasets.Dataset or a list of texts."
        )
    if not len(rows):
        raise InputError(f"{rows.source or 'the calibration data'} has no rows.")
    labels = None if rows.labels is None else np.asarray(rows.labels, dtype=np.int64)
    return model.read(rows.texts, max_length), labels, rows.source


def _tokenized(model: SweetModelForSequenceClassification, dataset: Any) -> tuple[TokenBatch, np.ndarray | None, str]:
    """Rows that were tokenized before; columns that the mask leaves out are dropped."""
    masks = dataset["attention_mask"] if "attention_mask" in dataset.column_names else None
    names = [_TOKENS, *(["token_type_ids"] if "token_type_ids" in dataset.column_names else [])]
    kept = {name: [list(map(int, row)) for row in dataset[name]] for name in names}
    if masks is not None:
        for name, rows in kept.items():
            kept[name] = [
                [value for value, there in zip(row, mask, strict=True) if there]
                for row, mask in zip(rows, masks, strict=True)
            ]
    label_column = next((name for name in ("label", "labels") if name in dataset.column_names), None)
    labels = None if label_column is None else np.asarray(dataset[label_column], dtype=np.int64)
    batch = TokenBatch.from_rows(kept[_TOKENS], kept.get("token_type_ids"), model.backend.uncounted_token)
    return batch, labels, "the calibration data set"
