"""Reads and splits calibration rows: some to observe activation ranges, some to compare with the float model."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from itrex_sweet.artifact.fingerprints import Fingerprints
from itrex_sweet.calibration.rows import CONSEQUENCES, HeldOutRows, read_held_out_rows
from itrex_sweet.errors import InputError
from itrex_sweet.evaluation.seen_rows import seen_rows
from itrex_sweet.modeling import SweetModelForSequenceClassification
from itrex_sweet.runtime.ragged import TokenBatch

logger = logging.getLogger(__name__)

MIN_ROWS = 16
RECOMMENDED_ROWS = 100
MAX_EVALUATED = 1000


@dataclass(frozen=True)
class CalibrationRows:
    """Tokenized calibration rows.

    Args:
        observed: rows on which activation ranges are observed.
        evaluated: rows on which models are compared and temperatures fitted; disjoint from `observed` if there are
            enough rows.
        labels: (rows,) int64 of `evaluated`, or `None`.
        source: name of the data, for records.
        disjoint: true if `evaluated` and `observed` have no row in common.
        used: all rows used.
    """

    observed: TokenBatch
    evaluated: TokenBatch
    labels: np.ndarray | None
    source: str
    disjoint: bool
    used: HeldOutRows

    def fingerprints(self) -> Fingerprints:
        """Returns the fingerprints of all rows used."""
        return Fingerprints.of(self.used.batch.rows())


def read_calibration_rows(
    model: SweetModelForSequenceClassification,
    source: Any,
    count: int,
    seed: int,
    *,
    max_length: int | None = None,
    **columns: Any,
) -> CalibrationRows:
    """Reads rows and splits them at random.

    Args:
        model: provides the tokenizer.
        source: a file or `datasets` name, a `datasets.Dataset` with texts or with `input_ids`, a list of texts or of
            pairs, or `Rows`.
        count: number of rows to observe ranges on.
        seed: of the random split.
        max_length: maximum number of tokens per row.
        columns: as in `read_rows`.

    Raises:
        InputError: fewer than `MIN_ROWS` rows, unreadable rows, or labels that the model does not have.
        ConfigError: missing columns.
    """
    rows = read_held_out_rows(model, source, max_length, **columns)
    batch, labels, name = rows.batch, rows.labels, rows.name
    if len(batch) < MIN_ROWS:
        raise InputError(
            f"{name} has {len(batch)} rows; at least {MIN_ROWS} are needed, and {RECOMMENDED_ROWS} to 300 are "
            "recommended for reliable ranges and temperatures."
        )
    if len(batch) < RECOMMENDED_ROWS:
        logger.warning(
            "%s has only %d rows to calibrate on; %d to 300 are recommended.", name, len(batch), RECOMMENDED_ROWS
        )
    order = np.random.default_rng(seed).permutation(len(batch))
    observed, rest = order[:count], order[count : count + MAX_EVALUATED]
    disjoint = len(rest) >= RECOMMENDED_ROWS
    evaluated = rest if disjoint else order[:MAX_EVALUATED]
    return CalibrationRows(
        observed=batch.select(observed),
        evaluated=batch.select(evaluated),
        labels=None if labels is None else labels[evaluated],
        source=name,
        disjoint=disjoint,
        used=rows.select(np.union1d(observed, evaluated)),
    )


def warn_about_seen_rows(model: SweetModelForSequenceClassification, rows: CalibrationRows) -> dict[str, float]:
    """Warns if calibration rows were used for training, selection or reports.

    Returns:
        role → fraction of the calibration rows used in it, if not 0.
    """
    shares = seen_rows(model, rows.used.batch, rows.used.texts).shares
    shares = {role: share for role, share in shares.items() if role in CONSEQUENCES}
    for role, share in shares.items():
        logger.warning(
            "%.3g %% of the rows in %s are %s rows of this model: %s. Use other rows.",
            100 * share,
            rows.source,
            role,
            CONSEQUENCES[role],
        )
    return shares
