"""The rows that a model is calibrated on: token ids, labels where there are any, and whether it has seen them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itrex_sweet.artifact import Artifact
from itrex_sweet.artifact.fingerprints import REPORTING, TRAINING, Fingerprints
from itrex_sweet.data import Rows, label_ids, read_rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.ragged import TokenBatch

logger = logging.getLogger(__name__)

MOST_SEEN_BEFORE = 0.05  # share of the rows, above which they are refused
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


def not_seen_before(batch: TokenBatch, artifact: Artifact, name: str) -> np.ndarray:
    """Places of the rows that the model was neither trained nor reported on; a few others, such as texts that come
    twice, are left out.

    Raises:
        InputError: they are more than a few.
    """
    recorded, rows = artifact.fingerprints(), batch.rows()
    for role, share in shares_seen_before(Fingerprints.of(rows), recorded).items():
        if share <= MOST_SEEN_BEFORE:
            continue
        raise InputError(
            f"{100 * share:.0f} % of the rows in {name} are {role} rows of this model: {CONSEQUENCES[role]}. Calibrate "
            "on others, or pass force=True (--force) and take no promise from it."
        )
    seen = np.zeros(len(batch), dtype=bool)
    for role in CONSEQUENCES:
        if role in recorded:
            seen |= recorded[role].holds(rows)
    if seen.any():
        logger.warning("%d of %d rows in %s were trained or reported on: left out.", seen.sum(), len(seen), name)
    return np.flatnonzero(~seen)


def refuse_useless_labels(labels: np.ndarray | None, name: str, needed: bool) -> None:
    """Refuses rows from whose labels nothing can be learned.

    Args:
        needed: whether what is promised is seen by labels.

    Raises:
        InputError: labels are needed and missing, or all the same.
    """
    if labels is None and needed:
        raise InputError(
            f"{name} has no labels, and what is promised needs them. max_agreement_drop compares with the full "
            "model's answers, and needs none."
        )
    if labels is not None and len(np.unique(labels)) < 2:
        raise InputError(
            f"every row of {name} has the label {labels[0]}: calibrate on rows as they come, of every label."
        )


def _read(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None, columns: dict[str, Any]
) -> tuple[TokenBatch, np.ndarray | None, str]:
    if hasattr(source, "column_names") and _TOKENS in source.column_names:
        return _tokenized(model, source)
    if isinstance(source, Rows):
        rows = source
    elif isinstance(source, (str, os.PathLike)) or hasattr(source, "column_names"):
        rows = read_rows(source, label_names=model.artifact.label_names, **columns)
    elif isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray)):
        rows = Rows(list(source), source="the calibration texts")
    else:
        raise ConfigError(
            f"calibration data of type {type(source).__name__}: give a file, the name of a data set, a "
            "datasets.Dataset or a list of texts."
        )
    if not len(rows):
        raise InputError(f"{rows.source or 'the calibration data'} has no rows.")
    labels = rows.labels
    if labels is not None and rows.label_names is not None:
        labels = _in_terms_of(model, labels, rows.source, rows.label_names)
    return model.read(rows.texts, max_length), None if labels is None else np.asarray(labels, np.int64), rows.source


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
    name = "the calibration data set"
    labels = None
    if label_column is not None:
        meanings = getattr(dataset.features.get(label_column), "names", None)
        labels = np.asarray(_in_terms_of(model, list(dataset[label_column]), name, meanings), dtype=np.int64)
    batch = TokenBatch.from_rows(kept[_TOKENS], kept.get("token_type_ids"), model.backend.uncounted_token)
    return batch, labels, name


def _in_terms_of(
    model: SweetModelForSequenceClassification, labels: Sequence[Any], source: str, meanings: Sequence[str] | None
) -> list[int]:
    """The model's ids of labels, met by name where they have names.

    Raises:
        InputError: the model does not have them.
    """
    places = [f"{source}, row {row}" for row in range(len(labels))]
    return label_ids(labels, places, model.artifact.label_names, meanings)[0]
