"""The rows a quantization is given: some to observe ranges on, some to judge the result by."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact.fingerprints import REPORTING, TRAINING, Fingerprints
from itrex_sweet.data import Rows, read_rows
from itrex_sweet.errors import ConfigError, InputError
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.ragged import TokenBatch

logger = logging.getLogger(__name__)

LEAST_ROWS = 16
ENOUGH_ROWS = 100  # below this, a warning
MOST_JUDGED = 1000

_TOKENS = "input_ids"


@dataclass(frozen=True)
class CalibrationRows:
    """Rows as token ids.

    Args:
        observed: on which activation ranges are observed.
        judged: on which outcomes are compared and temperatures fitted; other rows than `observed` where there were
            enough.
        labels: (rows,) int64 of `judged`, or `None`.
        source: what was read, for records.
        apart: whether `judged` holds none of `observed`.
    """

    observed: TokenBatch
    judged: TokenBatch
    labels: np.ndarray | None
    source: str
    apart: bool

    def fingerprints(self) -> Fingerprints:
        """Of all of them."""
        return Fingerprints.of([*self.observed.rows(), *self.judged.rows()])


def read_calibration_rows(
    model: SweetModelForSequenceClassification,
    source: Any,
    count: int,
    seed: int,
    *,
    max_length: int | None = None,
    **columns: Any,
) -> CalibrationRows:
    """Reads rows and deals them out at random.

    Args:
        model: whose tokenizer reads the texts.
        source: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, a list of texts or of
            pairs, or `Rows`.
        count: rows to observe ranges on.
        seed: of the dealing.
        max_length: tokens per row at most.
        columns: as in `read_rows`.

    Raises:
        InputError: no rows, fewer than `LEAST_ROWS`, unreadable ones, or labels that the model does not have.
        ConfigError: columns that are not there.
    """
    batch, labels, name = _read(model, source, max_length, columns)
    if len(batch) < LEAST_ROWS:
        raise InputError(
            f"{name} has {len(batch)} rows; calibration needs {LEAST_ROWS} at least, and {ENOUGH_ROWS} to 300 are "
            "advisable: ranges and temperatures taken from a handful of rows say little about the next one."
        )
    if len(batch) < ENOUGH_ROWS:
        logger.warning("%s has only %d rows to calibrate on; %d to 300 are advisable.", name, len(batch), ENOUGH_ROWS)
    _refuse_unknown_labels(labels, model.config.num_labels)
    order = np.random.default_rng(seed).permutation(len(batch))
    observed, rest = order[:count], order[count : count + MOST_JUDGED]
    apart = len(rest) >= ENOUGH_ROWS
    judged = rest if apart else order[:MOST_JUDGED]
    return CalibrationRows(
        observed=batch.select(observed),
        judged=batch.select(judged),
        labels=None if labels is None else labels[judged],
        source=name,
        apart=apart,
    )


def warn_of_shared_rows(rows: CalibrationRows, recorded: dict[str, Fingerprints]) -> dict[str, float]:
    """Compares calibration rows with those that the artifact was trained and reported on, and says so aloud.

    Returns:
        role → share of the calibration rows that are among them, where it is not 0.
    """
    ours = rows.fingerprints()
    shares = {role: ours.share_in(recorded[role]) for role in (TRAINING, REPORTING) if role in recorded}
    consequences = {
        TRAINING: "confidences are too high on rows seen in training, so temperatures will be too low",
        REPORTING: "figures reported on them would no longer be held-out ones",
    }
    for role, share in shares.items():
        if share > 0.0:
            logger.warning(
                "%.0f %% of the rows in %s are %s rows of this model: %s. Use other rows.",
                100 * share,
                rows.source,
                role,
                consequences[role],
            )
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


def _refuse_unknown_labels(labels: np.ndarray | None, num_labels: int) -> None:
    if labels is None:
        return
    bad = np.flatnonzero((labels < 0) | (labels >= num_labels))
    if len(bad):
        raise InputError(
            f"label {labels[bad[0]]} of calibration row {bad[0]}: the model's labels go from 0 to {num_labels - 1}.",
            tuple(bad.tolist()),
        )
