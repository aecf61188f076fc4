"""The rows a quantization is given: some to observe ranges on, some to judge the result by."""

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
ENOUGH_ROWS = 100  # below this, a warning
MOST_JUDGED = 1000


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
        used: all of them.
    """

    observed: TokenBatch
    judged: TokenBatch
    labels: np.ndarray | None
    source: str
    apart: bool
    used: HeldOutRows

    def fingerprints(self) -> Fingerprints:
        """Of all of them."""
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
        InputError: no rows, fewer than `MIN_ROWS`, unreadable ones, or labels that the model does not have.
        ConfigError: columns that are not there.
    """
    rows = read_held_out_rows(model, source, max_length, **columns)
    batch, labels, name = rows.batch, rows.labels, rows.name
    if len(batch) < MIN_ROWS:
        raise InputError(
            f"{name} has {len(batch)} rows; calibration needs {MIN_ROWS} at least, and {ENOUGH_ROWS} to 300 are "
            "advisable: ranges and temperatures taken from a handful of rows say little about the next one."
        )
    if len(batch) < ENOUGH_ROWS:
        logger.warning("%s has only %d rows to calibrate on; %d to 300 are advisable.", name, len(batch), ENOUGH_ROWS)
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
        used=rows.select(np.union1d(observed, judged)),
    )


def warn_about_seen_rows(model: SweetModelForSequenceClassification, rows: CalibrationRows) -> dict[str, float]:
    """Compares calibration rows with those that a model was trained and reported on, and says so aloud.

    Returns:
        role → share of the calibration rows that are among them, where it is not 0.
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
