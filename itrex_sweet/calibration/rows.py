"""Reads held-out rows for calibration, and excludes rows that the model has seen before (data leakage)."""

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
from itrex_sweet.tasks import REGRESSION, SINGLE_LABEL
from itrex_sweet.tokenization.inputs import listed, plain_texts

logger = logging.getLogger(__name__)

MAX_SEEN_SHARE = 0.05  # of the rows; more are refused
_TOKEN_IDS = "input_ids"
_COLUMNS = sorted({*inspect.signature(read_rows).parameters} - {"source", "label_names", "task"})

# Role of rows seen before → why they must not be used for calibration.
CONSEQUENCES = {
    TRAINING: "confidences are too high on rows seen in training, so temperatures will be too low",
    SELECTION: "the checkpoint was selected on them, so its scores on them are too high",
    QUANTIZATION: "the INT8 model was selected and its temperatures were fitted on them",
    REPORTING: "scores reported on them would no longer be held-out scores",
}


@dataclass(frozen=True)
class HeldOutRows:
    """Tokenized rows.

    Args:
        batch: their tokens.
        labels: as `evaluation.labels.checked_labels` returns them, or `None`.
        texts: texts or pairs of texts; `None` if the source held token ids.
        name: of the source, for messages.
    """

    batch: TokenBatch
    labels: np.ndarray | None
    texts: list[Text] | None
    name: str

    def __len__(self) -> int:
        return len(self.batch)

    def select(self, rows: np.ndarray) -> HeldOutRows:
        """Returns some rows, in the given order."""
        return HeldOutRows(
            self.batch.select(rows),
            None if self.labels is None else self.labels[rows],
            None if self.texts is None else [self.texts[row] for row in rows],
            self.name,
        )


def read_held_out_rows(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None = None, **columns: Any
) -> HeldOutRows:
    """Reads rows and tokenizes them with a model's tokenizer.

    Args:
        source: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, a list of texts or of
            pairs, or `Rows`.
        max_length: tokens per row at most.
        columns: as in `read_rows`.

    Raises:
        InputError: no rows, unreadable rows, or labels that the model does not have.
        ConfigError: missing columns, or a source of an unsupported type.
    """
    if max_length is not None:
        max_length = whole_number("max_length", max_length, 1)
    if unknown := columns.keys() - set(_COLUMNS):
        raise ConfigError(f"unknown options {', '.join(sorted(unknown))}: choose from {', '.join(_COLUMNS)}.")
    if hasattr(source, "column_names") and _TOKEN_IDS in source.column_names:
        return _read_tokenized(model, source)
    return _read_texts(model, source, max_length, columns)


def unseen_rows(model: SweetModelForSequenceClassification, rows: HeldOutRows) -> np.ndarray:
    """Returns the indices of rows that were not used to train, select, quantize or report on the model.

    Raises:
        InputError: more than `MAX_SEEN_SHARE` of the rows were used.
    """
    seen = seen_rows(model, rows.batch, rows.texts)
    for role, share in seen.shares.items():
        if role not in CONSEQUENCES or share <= MAX_SEEN_SHARE:
            continue
        raise InputError(
            f"{100 * share:.0f} % of the rows in {rows.name} are {role} rows of this model: {CONSEQUENCES[role]}. "
            "Calibrate on other rows, or pass force=True (--force), which voids the guarantee."
        )
    known = seen.any_of(tuple(CONSEQUENCES))
    if known.any():
        logger.warning(
            "%d of %d rows in %s were used in training, quantization or reports, and are skipped.",
            known.sum(),
            len(rows),
            rows.name,
        )
    return np.flatnonzero(~known)


def check_label_coverage(labels: np.ndarray | None, name: str, needed: bool) -> None:
    """Checks that there are labels if they are needed, of two classes at least.

    Args:
        needed: True if the budget's drop is measured with labels.

    Raises:
        InputError: labels are needed and missing, or all the same.
    """
    if labels is None and needed:
        raise InputError(
            f"{name} has no labels, and this budget needs them. max_agreement_drop compares with the full model's "
            "answers and needs none."
        )
    if labels is not None and len(np.unique(labels, axis=0)) < 2:
        raise InputError(
            f"every row of {name} has the label {labels[0]}: calibrate on representative rows of all labels."
        )


def _read_texts(
    model: SweetModelForSequenceClassification, source: Any, max_length: int | None, columns: dict[str, Any]
) -> HeldOutRows:
    if isinstance(source, Rows):
        rows = source
    elif isinstance(source, (str, os.PathLike)) or hasattr(source, "column_names"):
        task = model.artifact.task
        names = None if task.name == REGRESSION else model.artifact.label_names
        rows = read_rows(source, label_names=names, task=task.name, **columns)
    elif isinstance(source, Sequence) or hasattr(source, "tolist") or hasattr(source, "to_pylist"):
        rows = Rows(listed(source))
    else:
        raise ConfigError(
            f"calibration data of type {type(source).__name__}: pass a file, the name of a data set, a "
            "datasets.Dataset or a list of texts."
        )
    name = rows.source or "the calibration texts"
    if not len(rows):
        raise InputError(f"{name} has no rows.")
    labels = _read_labels(model, rows.labels, len(rows), name, rows.label_names)
    batch = model.read(rows.texts, max_length)
    return HeldOutRows(batch, labels, plain_texts(rows.texts), name)


def _read_tokenized(model: SweetModelForSequenceClassification, dataset: Any) -> HeldOutRows:
    """Reads rows of token ids; masked tokens (padding) are removed.

    Raises:
        InputError: rows that are not token ids of this model.
    """
    name = "the calibration data set"
    if not len(dataset):
        raise InputError(f"{name} has no rows.")
    names = [_TOKEN_IDS, *(["token_type_ids"] if "token_type_ids" in dataset.column_names else [])]
    masked = ["attention_mask"] if "attention_mask" in dataset.column_names else []
    columns = {column: _integer_lists(dataset[column], column) for column in [*names, *masked]}
    for column, rows in columns.items():
        for row, (values, ids) in enumerate(zip(rows, columns[_TOKEN_IDS], strict=True)):
            if len(values) != len(ids):
                raise InputError(f"row {row}: {len(values)} values of {column} for {len(ids)} token ids.", (row,))
    kept = {column: columns[column] for column in names}
    for mask in masked:
        kept = {
            column: [
                [value for value, is_token in zip(values, shown, strict=True) if is_token]
                for values, shown in zip(rows, columns[mask], strict=True)
            ]
            for column, rows in kept.items()
        }
    batch = TokenBatch.from_rows(kept[_TOKEN_IDS], kept.get("token_type_ids"), model.backend.padding_idx)
    for fault in faults(batch, model.backend):
        raise InputError(fault.message, fault.rows)
    label_column = next((column for column in ("label", "labels") if column in dataset.column_names), None)
    if label_column is None:
        return HeldOutRows(batch, None, None, name)
    meanings = getattr(dataset.features.get(label_column), "names", None)
    given = list(dataset[label_column])
    if meanings is None and any(isinstance(label, str) for label in given):
        meanings = model.artifact.label_names
    return HeldOutRows(batch, _read_labels(model, given, len(batch), name, meanings), None, name)


def _read_labels(
    model: SweetModelForSequenceClassification, given: Any, rows: int, name: str, meanings: Sequence[str] | None
) -> np.ndarray | None:
    """Returns the model's label ids (rows,), matched by name if the labels have names; `None` without labels.

    Raises:
        InputError: not one label of the model for each row.
    """
    task = model.artifact.task
    if given is None:
        return None
    if task.name != SINGLE_LABEL:
        return checked_labels(given, rows, model.config.num_labels, name, task)
    if meanings is not None and isinstance(given, Sequence) and len(given) == rows:
        places = [f"{name}, row {row}" for row in range(rows)]
        given = label_ids(given, places, model.artifact.label_names, meanings)[0]
    return checked_labels(given, rows, model.config.num_labels, name)


def _integer_lists(rows: Any, column: str) -> list[list[int]]:
    """Returns rows as lists of integers.

    Raises:
        InputError: a row that is not a sequence of integers.
    """
    lists = []
    for row, values in enumerate(rows):
        try:
            lists.append([operator.index(value) for value in values])
        except TypeError as error:
            raise InputError(f"row {row} of {column} is not a list of integers ({error}).", (row,)) from error
    return lists
