"""The rows that a model is calibrated on: token ids, labels where there are any, and whether it has seen them."""

from __future__ import annotations

import inspect
import logging
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.arguments import whole_number
from itrex_sweet.artifact.fingerprints import QUANTIZATION, REPORTING, SELECTION, TRAINING
from itrex_sweet.data import Rows, Text, label_ids, read_rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.evaluation.labels import checked_labels
from itrex_sweet.evaluation.seen_rows import seen_rows
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.limits import faults
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.tokenization.inputs import listed, plain_texts

logger = logging.getLogger(__name__)

MOST_SEEN_BEFORE = 0.05  # share of the rows, above which they are refused
_TOKENS = "input_ids"
_COLUMNS = sorted({*inspect.signature(read_rows).parameters} - {"source", "label_names"})

# role → what calibrating on such rows would spoil
CONSEQUENCES = {
    TRAINING: "confidences are too high on rows seen in training, so temperatures will be too low",
    SELECTION: "the checkpoint was chosen by them, so it does better on them than on others",
    QUANTIZATION: "the INT8 model was chosen, and its temperatures fitted, on them",
    REPORTING: "figures reported on them would no longer be held-out ones",
}


@dataclass(frozen=True)
class HeldOutRows:
    """Rows as a model reads them.

    Args:
        batch: their tokens.
        labels: (rows,) int64, or `None`.
        texts: texts or pairs; `None` where the source held token ids.
        name: what was read, for messages.
    """

    batch: TokenBatch
    labels: np.ndarray | None
    texts: list[Text] | None
    name: str

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, rows: np.ndarray) -> HeldOutRows:
        """The rows named, in that order."""
        return HeldOutRows(
            self.batch.select(rows),
            None if self.labels is None else self.labels[rows],
            None if self.texts is None else [self.texts[row] for row in rows],
            self.name,
        )


def read_held_out_rows(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None = None, **columns: Any
) -> HeldOutRows:
    """Reads rows with a model's tokenizer.

    Args:
        source: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, a list of texts or of
            pairs, or `Rows`.
        max_length: tokens per row at most.
        columns: as in `read_rows`.

    Raises:
        InputError: no rows, unreadable ones, or labels that the model does not have.
        ConfigError: columns that are not there, or a source of another type.
    """
    if max_length is not None:
        max_length = whole_number("max_length", max_length, 1)
    if unknown := columns.keys() - set(_COLUMNS):
        raise ConfigError(f"{', '.join(sorted(unknown))}: choose among {', '.join(_COLUMNS)}.")
    if hasattr(source, "column_names") and _TOKENS in source.column_names:
        return _tokenized(model, source)
    return _texts(model, source, max_length, columns)


def unseen_rows(model: SweetModelForSequenceClassification, rows: HeldOutRows) -> np.ndarray:
    """Places of the rows that the model was not trained, chosen, quantized or reported on; a few others, such as texts
    that come twice, are left out.

    Raises:
        InputError: they are more than a few.
    """
    seen = seen_rows(model, rows.batch, rows.texts)
    for role, share in seen.shares.items():
        if role not in CONSEQUENCES or share <= MOST_SEEN_BEFORE:
            continue
        raise InputError(
            f"{100 * share:.0f} % of the rows in {rows.name} are {role} rows of this model: {CONSEQUENCES[role]}. "
            "Calibrate on others, or pass force=True (--force) and take no promise from it."
        )
    known = seen.any_of(tuple(CONSEQUENCES))
    if known.any():
        logger.warning(
            "%d of %d rows in %s were trained, quantized or reported on: left out.", known.sum(), len(rows), rows.name
        )
    return np.flatnonzero(~known)


def check_label_coverage(labels: np.ndarray | None, name: str, needed: bool) -> None:
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


def _texts(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None, columns: dict[str, Any]
) -> HeldOutRows:
    if isinstance(source, Rows):
        rows = source
    elif isinstance(source, (str, os.PathLike)) or hasattr(source, "column_names"):
        rows = read_rows(source, label_names=model.artifact.label_names, **columns)
    elif isinstance(source, Sequence) or hasattr(source, "tolist") or hasattr(source, "to_pylist"):
        rows = Rows(listed(source))
    else:
        raise ConfigError(
            f"calibration data of type {type(source).__name__}: give a file, the name of a data set, a "
            "datasets.Dataset or a list of texts."
        )
    name = rows.source or "the calibration texts"
    if not len(rows):
        raise InputError(f"{name}: there are no rows.")
    labels = _labels(model, rows.labels, len(rows), name, rows.label_names)
    batch = model.read(rows.texts, max_length)
    return HeldOutRows(batch, labels, plain_texts(rows.texts), name)


def _tokenized(model: SweetModelForSequenceClassification, dataset: Any) -> HeldOutRows:
    """Rows that were tokenized before; columns that the mask leaves out are dropped.

    Raises:
        InputError: rows that are no token ids, or none of this model's.
    """
    name = "the calibration data set"
    if not len(dataset):
        raise InputError(f"{name}: there are no rows.")
    names = [_TOKENS, *(["token_type_ids"] if "token_type_ids" in dataset.column_names else [])]
    masked = ["attention_mask"] if "attention_mask" in dataset.column_names else []
    columns = {column: _integers(dataset[column], column) for column in [*names, *masked]}
    for column, rows in columns.items():
        for row, (values, ids) in enumerate(zip(rows, columns[_TOKENS], strict=True)):
            if len(values) != len(ids):
                raise InputError(f"row {row}: {len(values)} values of {column} for {len(ids)} token ids.", (row,))
    kept = {column: columns[column] for column in names}
    for mask in masked:
        kept = {
            column: [
                [value for value, there in zip(values, shown, strict=True) if there]
                for values, shown in zip(rows, columns[mask], strict=True)
            ]
            for column, rows in kept.items()
        }
    batch = TokenBatch.from_rows(kept[_TOKENS], kept.get("token_type_ids"), model.backend.uncounted_token)
    for fault in faults(batch, model.backend):
        raise InputError(fault.message, fault.rows)
    label_column = next((column for column in ("label", "labels") if column in dataset.column_names), None)
    if label_column is None:
        return HeldOutRows(batch, None, None, name)
    meanings = getattr(dataset.features.get(label_column), "names", None)
    given = list(dataset[label_column])
    if meanings is None and any(isinstance(label, str) for label in given):
        meanings = model.artifact.label_names
    return HeldOutRows(batch, _labels(model, given, len(batch), name, meanings), None, name)


def _labels(
    model: SweetModelForSequenceClassification, given: Any, rows: int, name: str, meanings: Sequence[str] | None
) -> np.ndarray | None:
    """(rows,) the model's ids of labels, met by name where they have names; `None` without labels.

    Raises:
        InputError: not one label of the model for each row.
    """
    if given is None:
        return None
    if meanings is not None and isinstance(given, Sequence) and len(given) == rows:
        places = [f"{name}, row {row}" for row in range(rows)]
        given = label_ids(given, places, model.artifact.label_names, meanings)[0]
    return checked_labels(given, rows, model.config.num_labels, name)


def _integers(rows: Any, column: str) -> list[list[int]]:
    """Rows of whole numbers, as lists.

    Raises:
        InputError: a row that is none.
    """
    lists = []
    for row, values in enumerate(rows):
        try:
            lists.append([operator.index(value) for value in values])
        except TypeError as error:
            raise InputError(f"row {row} of {column} is no list of whole numbers ({error}).", (row,)) from error
    return lists
